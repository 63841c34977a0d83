//! Where the pod is in the objects that make pods.

/// Where the pod template of a kind is, as a JSON pointer; empty for a pod itself. `None` for kinds without one.
pub fn pod_pointer(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            Some("/spec/template")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_without_pods_have_no_template() {
        assert_eq!(pod_pointer("Service"), None);
        assert_eq!(pod_pointer("Pod"), Some(""));
        assert_eq!(pod_pointer("CronJob"), Some("/spec/jobTemplate/spec/template"));
    }
}

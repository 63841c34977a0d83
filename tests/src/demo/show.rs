//! What a person sees at the end: the route, the pod, the message as it arrived, what the sidecar counted.

use k8s_openapi::api::core::v1::Pod;
use mailroute_m365::mailbox::Message;
use mailroute_operator_core::crd::MailRoute;

fn heading(text: &str) {
    println!("\n── {text} {}", "─".repeat(96_usize.saturating_sub(text.chars().count())));
}

/// The route as kubectl printed it when its pod had logged in, and its conditions.
pub fn route(listed: &str, route: &MailRoute) {
    heading("kubectl get mailroute, when the sidecar had logged in");
    println!("{listed}");
    for condition in route.status.iter().flat_map(|s| &s.conditions) {
        println!(
            "{:<18} {:<6} {:<16} {}",
            condition.type_, condition.status, condition.reason, condition.message
        );
    }
}

/// The injected pod: its containers and what each has mounted.
pub fn pod(pod: &Pod) {
    heading(&format!("pod {}", pod.metadata.name.as_deref().unwrap_or_default()));
    let Some(spec) = &pod.spec else { return };
    for container in spec.init_containers.iter().flatten() {
        let kind = if container.restart_policy.as_deref() == Some("Always") { "sidecar" } else { "init" };
        line(kind, container);
    }
    for container in &spec.containers {
        line("container", container);
    }
}

fn line(kind: &str, container: &k8s_openapi::api::core::v1::Container) {
    let mut mounts: Vec<_> = container.volume_mounts.iter().flatten().map(|m| m.name.as_str()).collect();
    if mounts.is_empty() {
        mounts.push("nothing");
    }
    let image = container.image.as_deref().unwrap_or_default();
    println!("{kind:<10} {:<10} {image}\n{:<22}mounts {}", container.name, "", mounts.join(", "));
}

/// Each message with its envelope, the token it came with, and its text.
pub fn messages(messages: &[Message]) {
    for message in messages {
        heading("the message, as Microsoft 365 received it");
        println!("mailbox        {}", message.mailbox);
        println!("MAIL FROM      {} {}", message.mail_from, message.mail_parameters.join(" "));
        println!("RCPT TO        {}", message.recipient_addresses().join(", "));
        println!("token subject  {}", message.token.assertion_subject);
        println!("token issuer   {}", message.token.assertion_issuer);
        println!("connection     {}\n", message.connection.tls_version.as_deref().unwrap_or("no TLS"));
        print!("{}", String::from_utf8_lossy(&message.data).replace("\r\n", "\n"));
    }
}

/// What the application printed, the sidecar's metrics among it.
pub fn application_log(log: &str) {
    heading("kubectl logs, container app (the last lines are the sidecar's metrics)");
    print!("{log}");
}

/// The sidecar's own log.
pub fn sidecar_log(log: &str) {
    heading("kubectl logs, container mailroute");
    print!("{log}");
}

/// The Job, as kubectl prints it; an empty line ends what is shown.
pub fn job(listed: &str) {
    heading("kubectl get job");
    println!("{listed}");
}

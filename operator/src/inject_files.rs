//! `mailroute-operator inject`: the webhook's work without a cluster, on files.
//!
//! Reads any number of YAML or JSON documents, pods or objects with a pod template, and prints them all as YAML, with the sidecar in
//! those that ask for it. Reading and printing are here; what is added is decided by the same code as in the webhook.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use mailroute_operator_core::crd::{MailRoute, ROUTE_LABEL};
use mailroute_operator_core::inject::plan::plan;
use mailroute_operator_core::inject::selection::Selection;
use mailroute_operator_core::inject::view::PodView;
use mailroute_operator_core::inject::workload::{has_label, has_label_within, pod_pointer, with_claims};
use mailroute_operator_core::inject::{self, Refusal, SidecarSettings};
use mailroute_operator_core::resolve::operator_identity::{OperatorIdentity, OperatorIdentityError};
use mailroute_operator_core::resolve::{PlatformSettings, RouteResolution, resolve};
use serde_json::Value;

use crate::injection_flags::InjectionFlags;

/// Flags of `inject`.
#[derive(Clone, Debug, Args)]
pub struct Inject {
    /// Pods, or what makes pods: any kind with a pod template in spec.template or spec.jobTemplate.spec.template, such as a
    /// Deployment, a Job, a CronJob or an Argo Rollout, or a List of them, YAML or JSON; - is standard input.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub filename: PathBuf,
    /// MailRoutes, YAML or JSON; other kinds in the file are skipped.
    #[arg(long, value_name = "FILE")]
    pub route: PathBuf,
    /// Namespace of objects that do not name theirs.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Route of pods without a label of their own, as on the label mailroute.dev/route of a namespace. Default: none.
    #[arg(long, value_name = "NAME")]
    pub namespace_route: Option<String>,
    /// Image of the sidecar.
    #[arg(long, env = "MAILROUTE_SIDECAR_IMAGE", default_value = concat!("mailroute.dev/sidecar:", env!("CARGO_PKG_VERSION")))]
    pub sidecar_image: String,
    /// Control service of the installation, the only one that the sidecars talk to: the chart's Service in its namespace, port 8444.
    #[arg(
        long,
        env = "MAILROUTE_CONTROL_ADDRESS",
        value_name = "HOST:PORT",
        default_value = "mailroute.mailroute-system.svc:8444"
    )]
    pub control_address: String,
    /// What else is chosen for sidecars.
    #[command(flatten)]
    pub injection: InjectionFlags,
    /// File that says which routes may use the operator's identity, as in the ConfigMap `RELEASE-broker`. Default: none.
    #[arg(long, env = "MAILROUTE_BROKER_SETTINGS", value_name = "FILE")]
    pub broker_settings: Option<PathBuf>,
}

/// Why nothing was printed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(String, #[source] io::Error),
    /// A file is not YAML.
    #[error("{0} is not YAML or JSON")]
    Yaml(String, #[source] Box<serde_saphyr::Error>),
    /// There is nothing to inject into.
    #[error("no object {}", if .0 == Path::new("-") { "on standard input".to_owned() } else { format!("in {}", .0.display()) })]
    NoObject(PathBuf),
    /// The file is not the settings of a broker.
    #[error("cannot use {0}")]
    Broker(PathBuf, #[source] Box<OperatorIdentityError>),
    /// The file of routes has none.
    #[error("no MailRoute in {0}")]
    NoRoute(String),
    /// A MailRoute is not of the form that it should have.
    #[error("cannot read MailRoute {name} in {file}")]
    BrokenRoute {
        /// Its name.
        name: String,
        /// The file that it is in.
        file: String,
        /// What is wrong.
        #[source]
        error: serde_json::Error,
    },
    /// The route of a pod's label is in another namespace than the pod.
    #[error(
        "{object}: it is in namespace {namespace:?}, and its MailRoute {route:?} in {found:?}. Objects without a namespace, \
         the MailRoute or the pod, are taken to be in that of the flag: -n {namespace}"
    )]
    OtherNamespace {
        /// Kind and name of the object.
        object: String,
        /// The object's namespace.
        namespace: String,
        /// The name on the label.
        route: String,
        /// The namespace that has a route of that name.
        found: String,
    },
    /// The label is in an object that has a pod template, and not in the template.
    #[error(
        "{object}: the label mailroute.dev/route is not where pods get it from. Put it into {path}.metadata.labels"
    )]
    Misplaced {
        /// Kind and name of the object.
        object: String,
        /// Where the pod template is.
        path: String,
    },
    /// The label is somewhere in the object, and no pod template where it should be.
    #[error(
        "{0}: it has the label mailroute.dev/route, and no pod template in spec.template or spec.jobTemplate.spec.template; \
         inject the pods or the workload that it makes"
    )]
    NoTemplate(String),
    /// A pod cannot have a sidecar.
    #[error("{object}: {refusal} {}", refusal.remedy())]
    Refused {
        /// Kind and name of the object.
        object: String,
        /// Why.
        refusal: Refusal,
    },
    /// The patch does not fit the pod.
    #[error("cannot apply the patch to {0}")]
    Patch(String, #[source] json_patch::PatchError),
    /// The result cannot be printed.
    #[error("cannot print the result")]
    Print(#[from] serde_saphyr::ser::Error),
    /// The result cannot be written.
    #[error("cannot write the result")]
    Write(#[from] io::Error),
}

/// Injects into everything in the file and writes the result to `output`, and a line to `notes` for each pod that was
/// left as it was.
///
/// # Errors
/// At the first pod that cannot have its sidecar; then nothing is written.
pub fn run(
    flags: &Inject,
    input: &mut dyn Read,
    output: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), Error> {
    let settings = PlatformSettings {
        operator_identity: operator_identity(flags.broker_settings.as_deref())?,
        entra_audiences: flags.injection.entra_audiences.clone(),
        ..PlatformSettings::default()
    };
    let offline = Offline {
        routes: routes(&flags.route, &flags.namespace, &settings)?,
        platform: flags.injection.platform(&flags.sidecar_image, &flags.control_address),
        namespace: flags.namespace.clone(),
        default: flags.namespace_route.clone(),
    };
    let mut documents = documents(&flags.filename, input)?;
    if documents.iter().all(Value::is_null) {
        return Err(Error::NoObject(flags.filename.clone()));
    }
    for document in &mut documents {
        for left in offline.inject(document)? {
            writeln!(notes, "{left}; left as it is")?;
        }
    }
    output.write_all(serde_saphyr::to_string_multiple(&documents)?.as_bytes())?;
    Ok(())
}

const UNLABELLED: &str = "no label mailroute.dev/route";

/// What the webhook would know of the cluster, from files.
struct Offline {
    routes: Vec<(MailRoute, RouteResolution)>,
    platform: SidecarSettings,
    namespace: String,
    /// The route that the label of the pods' namespace names.
    default: Option<String>,
}

impl Offline {
    /// Injects into one object, or into each item of a List. Returns the pods that did not ask, each with why.
    fn inject(&self, object: &mut Value) -> Result<Vec<String>, Error> {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let ("List", Some(Value::Array(items))) = (&*kind, object.get_mut("items")) {
            let left = items.iter_mut().map(|item| self.inject(item)).collect::<Result<Vec<_>, _>>()?;
            return Ok(left.concat());
        }
        let called = format!("{kind} {}", text(object, "/metadata/name").unwrap_or("(unnamed)"));
        let namespace = text(object, "/metadata/namespace").unwrap_or(&self.namespace).to_owned();
        let Some(pointer) = pod_pointer(object) else {
            return if has_label_within(object) { Err(Error::NoTemplate(called)) } else { Ok(Vec::new()) };
        };
        let is_misplaced = !pointer.is_empty() && has_label(object);
        let mut made =
            object.pointer(pointer).map(|template| with_claims(object, template)).unwrap_or_default();
        let Some(pod) = object.pointer_mut(pointer) else { return Ok(Vec::new()) };
        // A template may leave its metadata out; then it asks for nothing.
        if pod.pointer("/metadata/labels").and_then(|labels| labels.get(ROUTE_LABEL)).is_none() {
            let path = pointer.trim_start_matches('/').replace('/', ".");
            match &self.default {
                _ if is_misplaced => return Err(Error::Misplaced { object: called, path }),
                None => return Ok(vec![format!("{called}: {UNLABELLED}")]),
                Some(_) => {
                    with_metadata(pod);
                    with_metadata(&mut made);
                }
            }
        }
        self.inject_pod(pod, &made, &namespace, called)
    }

    /// `made` is the pod as its controller makes it of the template `pod`.
    fn inject_pod(
        &self,
        pod: &mut Value,
        made: &Value,
        namespace: &str,
        called: String,
    ) -> Result<Vec<String>, Error> {
        match self.patch(pod, made, namespace) {
            Err(refusal) => Err(self.refused(called, refusal)),
            Ok(Err(why)) => Ok(vec![format!("{called}: {why}")]),
            Ok(Ok(patch)) => {
                json_patch::patch(pod, &patch).map_err(|error| Error::Patch(called, error))?;
                Ok(Vec::new())
            }
        }
    }

    fn refused(&self, object: String, refusal: Refusal) -> Error {
        if let Refusal::UnknownRoute { route, namespace, .. } = &refusal {
            let metadata = self.routes.iter().map(|(route, _)| &route.metadata);
            let found =
                metadata.filter(|it| it.name.as_ref() == Some(route)).find_map(|it| it.namespace.clone());
            if let Some(found) = found {
                let (namespace, route) = (namespace.clone(), route.clone());
                return Error::OtherNamespace { object, namespace, route, found };
            }
        }
        Error::Refused { object, refusal }
    }

    /// The patch, or why there is none.
    fn patch(
        &self,
        pod: &Value,
        made: &Value,
        namespace: &str,
    ) -> Result<Result<json_patch::Patch, &'static str>, Refusal> {
        let view = PodView::new(pod)?;
        let selection = match &self.default {
            Some(default) => Selection::in_namespace(&view, default),
            None => Selection::of(&view),
        };
        let name = match selection {
            Selection::Route(name) => name,
            Selection::Unlabelled => return Ok(Err(UNLABELLED)),
            Selection::OptedOut => return Ok(Err("labelled to get no route of its namespace")),
            Selection::Mirror => return Ok(Err("a mirror pod, which cannot be changed")),
            Selection::Excused => return Ok(Err("annotated to start without its sidecar")),
        };
        let (route, resolution) = self.route(namespace, name)?;
        let route = inject::injectable(route, resolution)?;
        let patch = inject::patch(&plan(made, route, &self.platform)?, pod)?;
        Ok(Ok(inject::labelling(Some(patch), &view, name).unwrap_or_default()))
    }

    fn route(&self, namespace: &str, name: &str) -> Result<&(MailRoute, RouteResolution), Refusal> {
        let here = |(route, _): &&(MailRoute, RouteResolution)| {
            route.metadata.namespace.as_deref() == Some(namespace)
        };
        let named = |(route, _): &&(MailRoute, RouteResolution)| route.metadata.name.as_deref() == Some(name);
        self.routes.iter().filter(here).find(named).ok_or_else(|| Refusal::UnknownRoute {
            route: name.to_owned(),
            namespace: namespace.to_owned(),
            known: self
                .routes
                .iter()
                .filter(here)
                .filter_map(|(route, _)| route.metadata.name.clone())
                .collect(),
        })
    }
}

/// Gives a template that leaves its metadata out an empty one, as its pods have some.
fn with_metadata(template: &mut Value) {
    if let Some(template) = template.as_object_mut() {
        template.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer)?.as_str()
}

/// Which routes may use the operator's identity; none without a file.
fn operator_identity(path: Option<&Path>) -> Result<OperatorIdentity, Error> {
    let Some(path) = path else { return Ok(OperatorIdentity::default()) };
    let text = fs::read_to_string(path).map_err(|error| Error::Read(shown(path), error))?;
    OperatorIdentity::parse(&text).map_err(|error| Error::Broker(path.to_owned(), Box::new(error)))
}

/// The routes of a file, each with what an API server would give it, and resolved. Documents of other kinds are passed over.
fn routes(
    path: &Path,
    namespace: &str,
    settings: &PlatformSettings,
) -> Result<Vec<(MailRoute, RouteResolution)>, Error> {
    let mut routes = Vec::new();
    for document in documents(path, &mut io::empty())? {
        if text(&document, "/kind") != Some("MailRoute") {
            continue;
        }
        let name = text(&document, "/metadata/name").unwrap_or("(unnamed)").to_owned();
        let mut route: MailRoute = serde_json::from_value(document).map_err(|error| Error::BrokenRoute {
            name,
            file: shown(path),
            error,
        })?;
        route.metadata.namespace.get_or_insert_with(|| namespace.to_owned());
        route.metadata.uid.get_or_insert_with(|| "offline".to_owned());
        let resolution = resolve(&route, settings);
        routes.push((route, resolution));
    }
    if routes.is_empty() { Err(Error::NoRoute(shown(path))) } else { Ok(routes) }
}

/// The name of a file for messages.
fn shown(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// The documents of a file, or of `input` when the file is `-`.
fn documents(path: &Path, input: &mut dyn Read) -> Result<Vec<Value>, Error> {
    let read = if path == Path::new("-") { io::read_to_string(input) } else { fs::read_to_string(path) };
    let content = read.map_err(|error| Error::Read(shown(path), error))?;
    // As kubectl reads them: 0644 is octal.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(&content, options)
        .map_err(|error| Error::Yaml(shown(path), Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "
apiVersion: mailroute.dev/v1alpha1
kind: MailRoute
metadata: {name: notifications}
spec:
  method: ClientSubmission
  tenant: {id: 72f988bf-86f1-41af-91ab-2d7cd011db47}
  clientSubmission:
    mailbox: noreply@contoso.com
    credential: {type: WorkloadIdentity, clientId: 1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9}
";

    struct Told {
        result: Result<(), Error>,
        printed: String,
        notes: String,
    }

    fn inject(input: &str) -> Told {
        inject_by(ROUTE, input)
    }

    fn inject_by(routes: &str, input: &str) -> Told {
        inject_with(routes, None, input)
    }

    fn inject_with(routes: &str, namespace_route: Option<&str>, input: &str) -> Told {
        let directory = tempfile::tempdir().unwrap();
        let route = directory.path().join("route.yaml");
        fs::write(&route, routes).unwrap();
        let flags = Inject {
            filename: "-".into(),
            route,
            namespace: "shop".into(),
            namespace_route: namespace_route.map(str::to_owned),
            sidecar_image: "mailroute.dev/sidecar:0.1.0".into(),
            control_address: "mailroute.mailroute-system.svc:8444".into(),
            injection: InjectionFlags::default(),
            broker_settings: None,
        };
        let (mut printed, mut notes) = (Vec::new(), Vec::new());
        let result = run(&flags, &mut input.as_bytes(), &mut printed, &mut notes);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Told { result, printed: text(printed), notes: text(notes) }
    }

    fn parsed(told: &Told) -> Vec<Value> {
        serde_saphyr::from_multiple(&told.printed).unwrap()
    }

    #[test]
    fn every_kind_with_a_template_gets_its_sidecar() {
        let template = "{metadata: {labels: {mailroute.dev/route: notifications}}, spec: {containers: []}}";
        for (kind, spec, pointer) in [
            ("Deployment", format!("{{template: {template}}}"), "/spec/template"),
            ("Job", format!("{{template: {template}}}"), "/spec/template"),
            ("Rollout", format!("{{strategy: {{}}, template: {template}}}"), "/spec/template"),
            (
                "CronJob",
                format!("{{jobTemplate: {{spec: {{template: {template}}}}}}}"),
                "/spec/jobTemplate/spec/template",
            ),
        ] {
            let told = inject(&format!("kind: {kind}\nmetadata: {{name: web}}\nspec: {spec}\n"));
            let at = format!("{pointer}/spec/initContainers/0/name");
            assert_eq!(parsed(&told)[0].pointer(&at), Some(&"mailroute".into()), "{}", told.printed);
        }
    }

    #[test]
    fn what_has_no_label_gets_the_route_of_the_namespace_and_its_label() {
        let of_namespace = |input: &str| inject_with(ROUTE, Some("notifications"), input);
        for template in
            ["{spec: {containers: []}}", "{metadata: {labels: {app: web}}, spec: {containers: []}}"]
        {
            let told = of_namespace(&format!("kind: Deployment\nspec: {{template: {template}}}\n"));
            let injected = &parsed(&told)[0]["spec"]["template"];
            assert_eq!(injected["spec"]["initContainers"][0]["name"], "mailroute", "{}", told.notes);
            assert_eq!(injected["metadata"]["labels"]["mailroute.dev/route"], "notifications");
        }
        let out = "kind: Pod\nmetadata: {name: a, labels: {mailroute.dev/inject: 'false'}}\nspec: {containers: []}\n";
        let told = of_namespace(out);
        assert_eq!(told.notes, "Pod a: labelled to get no route of its namespace; left as it is\n");
        assert!(!told.printed.contains("initContainers"), "{}", told.printed);
        let told = of_namespace(
            "kind: SealedSecret\nmetadata: {name: s}\nspec: {template: {metadata: {name: s}}}\n",
        );
        assert!(told.result.is_ok() && !told.printed.contains("labels"), "{}", told.printed);
    }

    #[test]
    fn the_sidecar_is_told_the_control_service_as_the_webhook_would() {
        let told = inject(
            "kind: Pod\nmetadata: {name: a, labels: {mailroute.dev/route: notifications}}\nspec: {containers: []}\n",
        );
        let sidecar = &parsed(&told)[0]["spec"]["initContainers"][0];
        assert_eq!(sidecar["args"][0], "--control=mailroute.mailroute-system.svc:8444");
    }

    #[test]
    fn documents_without_a_request_are_printed_as_they_were() {
        let told = inject(
            "kind: Service\nmetadata: {name: web}\n---\nkind: Pod\nmetadata: {name: db}\nspec: {containers: []}\n",
        );
        assert_eq!(parsed(&told).len(), 2);
        assert!(!told.printed.contains("mailroute"));
        assert_eq!(told.notes, "Pod db: no label mailroute.dev/route; left as it is\n");
    }

    #[test]
    fn a_label_where_no_template_is_ends_in_an_error() {
        let label = "labels: {mailroute.dev/route: notifications}";
        let told = inject(&format!(
            "kind: Prometheus\nmetadata: {{name: own}}\nspec: {{podMetadata: {{{label}}}}}\n"
        ));
        let error = told.result.unwrap_err().to_string();
        assert!(error.starts_with("Prometheus own: it has the label") && told.printed.is_empty(), "{error}");
    }

    #[test]
    fn a_label_beside_the_template_ends_in_an_error() {
        let label = "labels: {mailroute.dev/route: notifications}";
        let template = "{metadata: {}, spec: {containers: []}}";
        for (kind, object, path) in [
            (
                "Deployment",
                format!("metadata: {{name: web, {label}}}\nspec: {{template: {template}}}\n"),
                "spec.template.metadata.labels",
            ),
            (
                "CronJob",
                format!(
                    "metadata: {{name: web}}\nspec: {{jobTemplate: {{metadata: {{{label}}}, spec: {{template: {template}}}}}}}\n"
                ),
                "spec.jobTemplate.spec.template.metadata.labels",
            ),
        ] {
            let told = inject(&format!("kind: {kind}\n{object}"));
            let error = told.result.unwrap_err().to_string();
            assert!(error.starts_with(&format!("{kind} web: the label")) && error.ends_with(path), "{error}");
            assert_eq!(told.printed, "");
        }
    }

    const POD: &str = "kind: Pod\nmetadata: {name: a, labels: {mailroute.dev/route: notifications}}\nspec: {containers: []}\n";

    #[test]
    fn other_kinds_beside_the_route_are_passed_over() {
        let told = inject_by(&format!("kind: Job\nmetadata: {{name: once}}\n---\n{ROUTE}"), POD);
        assert!(told.result.is_ok() && told.printed.contains("name: mailroute"), "{}", told.printed);
        let error = inject_by("kind: Job\n", POD).result.unwrap_err().to_string();
        assert!(error.starts_with("no MailRoute in ") && error.ends_with("route.yaml"), "{error}");
    }

    #[test]
    fn a_broken_route_is_named_with_its_error() {
        let broken = ROUTE.replace("  method: ClientSubmission\n", "");
        let error = inject_by(&broken, POD).result.unwrap_err();
        assert!(error.to_string().starts_with("cannot read MailRoute notifications in "), "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("method"), "{source}");
    }

    #[test]
    fn a_route_in_another_namespace_is_pointed_out() {
        let pod = POD.replace("{name: a,", "{name: a, namespace: other,");
        let error = inject(&pod).result.unwrap_err().to_string();
        assert!(
            error.starts_with(
                r#"Pod a: it is in namespace "other", and its MailRoute "notifications" in "shop"."#
            ),
            "{error}"
        );
        assert!(error.ends_with("-n other"), "{error}");
    }

    #[test]
    fn standard_input_is_called_that() {
        for empty in ["", "\n", "---\n", "# nothing\n"] {
            assert_eq!(
                inject(empty).result.unwrap_err().to_string(),
                "no object on standard input",
                "{empty:?}"
            );
        }
        let error = inject("a: [").result.unwrap_err().to_string();
        assert_eq!(error, "standard input is not YAML or JSON");
    }

    #[test]
    fn the_items_of_a_list_are_looked_at() {
        let told = inject(
            r#"{"kind": "List", "items": [{"kind": "Pod", "metadata": {"name": "a",
                "labels": {"mailroute.dev/route": "notifications"}}, "spec": {"containers": []}}]}"#,
        );
        assert_eq!(parsed(&told)[0]["items"][0]["spec"]["initContainers"][0]["name"], "mailroute");
    }

    #[test]
    fn the_gateway_of_a_stateful_set_is_completed_and_its_claims_stay_claims() {
        let set = "kind: StatefulSet\nmetadata: {name: mail-gateway}\nspec:\n  template:\n    metadata: {labels: \
                   {mailroute.dev/route: notifications}}\n    spec:\n      securityContext: {fsGroup: 61025}\n      containers: \
                   [{name: mailroute, image: auto, imagePullPolicy: Never}]\n";
        let claimed = format!("{set}  volumeClaimTemplates: [{{metadata: {{name: mailroute-spool}}}}]\n");
        let told = inject(&claimed);
        assert!(told.result.is_ok(), "{:?}", told.result);
        let spec = &parsed(&told)[0]["spec"]["template"]["spec"];
        assert_eq!(spec["containers"][0]["image"], "mailroute.dev/sidecar:0.1.0");
        assert_eq!(spec.get("initContainers"), None);
        let volumes = spec["volumes"].as_array().unwrap();
        assert!(volumes.iter().all(|volume| volume["name"] != "mailroute-spool"), "{volumes:?}");
        assert_eq!(parsed(&inject(&told.printed)), parsed(&told), "again");
        let error = inject(set).result.unwrap_err().to_string();
        assert!(error.contains("has no volume claim") && error.contains("volumeClaimTemplate"), "{error}");
    }

    #[test]
    fn a_refusal_names_the_object_and_prints_nothing() {
        let told = inject(
            "kind: Pod\nmetadata: {name: a, labels: {mailroute.dev/route: invoices}}\nspec: {containers: []}\n",
        );
        assert_eq!(
            told.result.unwrap_err().to_string(),
            "Pod a: There is no MailRoute \"invoices\" in namespace \"shop\". Existing ones: notifications. \
             Correct the label mailroute.dev/route, or apply a MailRoute of that name."
        );
        assert_eq!(told.printed, "");
    }

    #[test]
    fn a_pod_says_otherwise_by_annotations_here_as_well() {
        let pod = |annotation: &str| {
            inject(&format!(
                "kind: Pod\nmetadata: {{name: a, labels: {{mailroute.dev/route: notifications}}, annotations: \
                 {{{annotation}}}}}\nspec: {{containers: []}}\n"
            ))
        };
        let told = pod("mailroute.dev/sidecar-memory-limit: 256Mi");
        let sidecar = &parsed(&told)[0]["spec"]["initContainers"][0];
        assert_eq!(sidecar["resources"]["limits"]["memory"], "256Mi");
        let refused = pod("mailroute.dev/sidecar-image: 'other:1'").result.unwrap_err().to_string();
        assert!(refused.starts_with("Pod a: The pod sets the sidecar's image"), "{refused}");
        let excused = pod("mailroute.dev/allow-without-sidecar: 'true'");
        assert!(!excused.printed.contains("initContainers"), "{}", excused.printed);
        assert_eq!(excused.notes, "Pod a: annotated to start without its sidecar; left as it is\n");
    }

    #[test]
    fn scalars_keep_their_meaning_for_kubectl() {
        let told = inject(
            "kind: Pod\nmetadata: {name: a, labels: {mailroute.dev/route: notifications}}\nspec:\n  containers:\n  \
             - {name: c, env: [{name: A, value: \"on\"}, {name: B, value: \"010\"}, {name: C, value: \"1e3\"}]}\n  \
             volumes: [{name: v, configMap: {name: c, defaultMode: 0644}}]\n",
        );
        // What YAML 1.1 takes for a boolean or a number has to stay quoted.
        for (value, quoted) in [("on", true), ("010", true), ("1e3", true), ("0", true)] {
            let found = [format!("value: \"{value}\""), format!("value: '{value}'")]
                .iter()
                .any(|text| told.printed.contains(text));
            assert_eq!(found, quoted, "{value}:\n{}", told.printed);
        }
        assert!(told.printed.contains("defaultMode: 420"), "{}", told.printed);
    }
}

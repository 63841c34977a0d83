//! What is asked of the cluster: routes, pods, logs, and commands in pods. Every answer that is a refusal names the right.
//!
//! * [`exec`]: a command in the container of MailRoute. [`pods`]: which pods of a route there are to run it in.
//! * [`each`]: the same in many pods, a few at a time; one that cannot be reached does not spoil the rest.
//! * [`visit`]: a pod of one's own, for a route that has none.

pub mod each;
pub mod exec;
pub mod pods;
pub mod visit;

use std::path::Path;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use mailroute_operator_core::crd::MailRoute;
use mailroute_route::text::chain;

use crate::error::{Error, Right};

/// Resource and group of routes.
pub const ROUTES: &str = "mailroutes.mailroute.dev";

/// Objects in one page of a list.
pub const PAGE: u32 = 500;

/// Longest time to connect to an API server.
const CONNECT: Duration = Duration::from_secs(15);

/// Which cluster, and where in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place<'a> {
    /// The kubeconfig; that of kubectl if none is named.
    pub kubeconfig: Option<&'a Path>,
    /// A context of it.
    pub context: Option<&'a str>,
    /// A namespace, instead of the context's.
    pub namespace: Option<&'a str>,
}

/// A cluster, and the namespace that is meant where none is named.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    /// Reads the kubeconfig. Asks nothing yet.
    ///
    /// # Errors
    /// When it cannot be read, or names what is not in it.
    pub async fn connect(place: &Place<'_>) -> Result<Self, Error> {
        // Already done where this is a part of another program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options =
            KubeConfigOptions { context: place.context.map(str::to_owned), ..KubeConfigOptions::default() };
        let unread = |error: &dyn std::error::Error| Error::Kubeconfig(chain(error));
        let mut config = match (place.kubeconfig, place.context) {
            (Some(path), _) => {
                let file = Kubeconfig::read_from(path).map_err(|error| unread(&error))?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unread(&error))?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| unread(&error))?,
            (None, None) => Config::infer().await.map_err(|error| unread(&error))?,
        };
        config.connect_timeout = Some(CONNECT);
        let namespace = place.namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config).map_err(|error| unread(&error))?;
        Ok(Self { client, namespace })
    }

    /// The namespace that is meant where none is named.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Routes as they are, whatever version of the definition is installed.
    pub fn routes_api(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<MailRoute>(&());
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &resource),
            None => Api::all_with(self.client(), &resource),
        }
    }

    /// The routes of a namespace, or of all of them.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn routes(&self, namespace: Option<&str>) -> Result<Vec<DynamicObject>, Error> {
        let denied = |error: kube::Error| Error::of(&error, Right::new("list", ROUTES, namespace));
        pages(&self.routes_api(namespace), ListParams::default()).await.map_err(denied)
    }

    /// A route of the namespace.
    ///
    /// # Errors
    /// When there is none of this name; the API server's refusal.
    pub async fn route(&self, name: &str) -> Result<DynamicObject, Error> {
        let namespace = Some(self.namespace.as_str());
        match self.routes_api(namespace).get_opt(name).await {
            Ok(Some(route)) => Ok(route),
            Ok(None) => {
                // The definition may be missing as well.
                self.routes(namespace).await?;
                Err(Error::Missing(format!("MailRoute {name} in namespace {}", self.namespace)))
            }
            Err(error) => Err(Error::of(&error, Right::new("get", ROUTES, namespace))),
        }
    }
}

/// A whole list, page by page.
///
/// # Errors
/// The API server's refusal.
pub async fn pages<K>(api: &Api<K>, params: ListParams) -> kube::Result<Vec<K>>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let (mut params, mut items) = (params.limit(PAGE), Vec::new());
    loop {
        let page = api.list(&params).await?;
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(items),
        }
    }
}

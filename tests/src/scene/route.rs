//! Routes of a scene: applied, and watched until their status says what a scenario waits for.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use mailroute_operator_core::crd::MailRoute;
use serde_json::Value;

use super::{PATIENCE, Scene};
use crate::{wait_for, wait_for_all};

impl Scene {
    /// Applies a route and waits until the operator has accepted it.
    ///
    /// # Errors
    /// The API server's refusal, or no `Accepted` condition in time.
    pub async fn route(&self, manifest: &Value) -> Result<MailRoute> {
        let route: MailRoute = self.apply(manifest).await?;
        let name = route.metadata.name.context("a stored route has a name")?;
        self.route_condition(&name, "Accepted", "True").await
    }

    /// Waits until a condition of a route has a status.
    ///
    /// # Errors
    /// When it does not in time; the error shows the route's status.
    pub async fn route_condition(&self, name: &str, condition: &str, status: &str) -> Result<MailRoute> {
        self.route_until(name, condition, |c| c.status == status)
            .await
            .with_context(|| format!("{condition} of {name} did not become {status}"))
    }

    /// Waits until a condition of a route has a reason.
    ///
    /// # Errors
    /// When it does not in time; the error shows the route's status.
    pub async fn route_reason(&self, name: &str, condition: &str, reason: &str) -> Result<MailRoute> {
        self.route_until(name, condition, |c| c.reason == reason)
            .await
            .with_context(|| format!("{condition} of {name} did not turn {reason}"))
    }

    async fn route_until(
        &self,
        name: &str,
        condition: &str,
        wanted: impl Fn(&Condition) -> bool,
    ) -> Result<MailRoute> {
        let met = |route: &MailRoute| condition_of(route, condition).is_some_and(&wanted);
        wait_for(self.api::<MailRoute>(), name, met, PATIENCE).await
    }

    /// Waits until the status of a route says that so many messages wait.
    ///
    /// # Errors
    /// When it does not in time; the error shows the route's status.
    pub async fn route_queues(&self, name: &str, messages: u64) -> Result<MailRoute> {
        let met = |route: &MailRoute| route.status.as_ref().is_some_and(|s| s.queue.messages == messages);
        let route = wait_for(self.api::<MailRoute>(), name, met, PATIENCE).await;
        route.with_context(|| format!("the queue of {name} did not get to {messages}"))
    }

    /// What `kubectl describe` shows of a route.
    ///
    /// # Errors
    /// When it fails.
    pub async fn describe(&self, name: &str) -> Result<String> {
        self.cluster.kubectl(&["--namespace", self.namespace.name(), "describe", "mailroute", name]).await
    }

    /// Waits for an Event about a route and returns what it says.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn route_event(&self, name: &str, reason: &str) -> Result<String> {
        let told = |event: &Event| {
            event.reason.as_deref() == Some(reason) && event.involved_object.name.as_deref() == Some(name)
        };
        let met = |events: &[Event]| events.iter().any(told);
        let events = wait_for_all(self.api::<Event>(), "", met, PATIENCE).await;
        let events = events.with_context(|| format!("no Event {reason} about {name}"))?;
        Ok(events.into_iter().find(told).and_then(|event| event.message).unwrap_or_default())
    }
}

/// A condition of a route, when it is there.
pub fn condition_of<'a>(route: &'a MailRoute, kind: &str) -> Option<&'a Condition> {
    route.status.as_ref()?.conditions.iter().find(|c| c.type_ == kind)
}

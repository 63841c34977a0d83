//! `AdmissionReview` of `admission.k8s.io/v1`: what comes in, and what goes out. Values only.

use json_patch::Patch;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use serde_json::Value;

use crate::inject::Refusal;

/// Version of the review that the webhook configuration names.
const API_VERSION: &str = "admission.k8s.io/v1";

/// Why a body is not a review that can be answered.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not of that shape.
    #[error("the body is not an AdmissionReview: {0}")]
    Shape(#[from] serde_json::Error),
    /// Another version.
    #[error("the AdmissionReview has apiVersion {0:?}; this webhook answers {API_VERSION}")]
    Version(String),
    /// No request in it.
    #[error("the AdmissionReview holds no request")]
    NoRequest,
}

/// A request to admit something.
#[derive(Debug)]
pub struct Review(AdmissionRequest<DynamicObject>);

impl Review {
    /// Reads a request body.
    ///
    /// # Errors
    /// When it is not a review of the version that is answered.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let review: AdmissionReview<DynamicObject> = serde_json::from_slice(body)?;
        if review.types.api_version != API_VERSION {
            return Err(DecodeError::Version(review.types.api_version));
        }
        review.try_into().map(Self).map_err(|_| DecodeError::NoRequest)
    }

    /// The pod, when the request creates one. Updates, subresources and other kinds are none of ours.
    pub fn created_pod(&self) -> Result<Option<Value>, serde_json::Error> {
        let Self(request) = self;
        let is_pod = request.kind.group.is_empty() && request.kind.kind == "Pod";
        if !is_pod || request.sub_resource.is_some() || request.operation != Operation::Create {
            return Ok(None);
        }
        request.object.as_ref().map(serde_json::to_value).transpose()
    }

    /// The namespace; the object itself often has none yet.
    pub fn namespace(&self) -> &str {
        self.0.namespace.as_deref().unwrap_or_default()
    }

    /// Whether nothing will come of the request.
    pub const fn is_dry_run(&self) -> bool {
        self.0.dry_run
    }

    /// Lets the object through as it is.
    pub fn allow(&self) -> AdmissionReview<DynamicObject> {
        AdmissionResponse::from(&self.0).into_review()
    }

    /// Lets the object through with the patch.
    ///
    /// # Errors
    /// When the patch cannot be written as JSON.
    pub fn allow_with(&self, patch: Patch) -> Result<AdmissionReview<DynamicObject>, serde_json::Error> {
        let response = AdmissionResponse::from(&self.0);
        let response = response.with_patch(patch).map_err(|e| serde::ser::Error::custom(e.to_string()))?;
        Ok(response.into_review())
    }

    /// Refuses the object, with words for a person.
    pub fn refuse(&self, refusal: &Refusal) -> AdmissionReview<DynamicObject> {
        let mut response = AdmissionResponse::from(&self.0).deny(told(refusal));
        response.result.code = 403;
        response.result.reason = "Forbidden".to_owned();
        response.into_review()
    }

    /// Refuses for now: the operator cannot answer yet, and whoever asks is to try again.
    pub fn defer(&self, why: &str) -> AdmissionReview<DynamicObject> {
        let mut response = AdmissionResponse::from(&self.0).deny(format!("MailRoute: {why}"));
        response.result.code = 503;
        response.result.reason = "ServiceUnavailable".to_owned();
        response.into_review()
    }
}

/// A refusal as a person reads it: who speaks, what is wrong, what to do.
pub fn told(refusal: &Refusal) -> String {
    format!("MailRoute: {refusal} {}", refusal.remedy())
}

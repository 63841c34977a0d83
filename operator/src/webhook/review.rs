//! `AdmissionReview` of `admission.k8s.io/v1`: what comes in, and what goes out. Values only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use mailroute_operator_core::crd::ROUTE_LABEL;
use mailroute_operator_core::inject::Refusal;
use mailroute_route::text::shortened;
use serde_json::Value;

/// Version of the review that the webhook configuration names.
const API_VERSION: &str = "admission.k8s.io/v1";

/// Longest uid, name, namespace or label, bytes. The API server allows 253 at most, but looks at an object's only after it has asked.
const LONGEST_NAME: usize = 1024;

/// Longest text about a body that cannot be read, bytes: it quotes the body.
const LONGEST_ERROR: usize = 256;

/// Why a body is not a review that can be answered.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not of that shape.
    #[error("the body is not an AdmissionReview: {0}")]
    Shape(String),
    /// Another version.
    #[error("the AdmissionReview has apiVersion {0:?}; this webhook answers {API_VERSION}")]
    Version(String),
    /// No request in it.
    #[error("the AdmissionReview holds no request")]
    NoRequest,
    /// A name that is no name.
    #[error("the AdmissionReview's {0} has more than {LONGEST_NAME} bytes")]
    TooLong(&'static str),
}

/// A request to admit something.
#[derive(Debug)]
pub struct Review(AdmissionRequest<DynamicObject>);

impl Review {
    /// Reads a request body.
    ///
    /// # Errors
    /// When it is not a review of the version that is answered, or has names that are far too long to be any.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let shape = |error: serde_json::Error| {
            DecodeError::Shape(shortened(&error.to_string(), LONGEST_ERROR).into_owned())
        };
        let review: AdmissionReview<DynamicObject> = serde_json::from_slice(body).map_err(shape)?;
        if review.types.api_version != API_VERSION {
            let version = shortened(&review.types.api_version, LONGEST_ERROR);
            return Err(DecodeError::Version(version.into_owned()));
        }
        let review: AdmissionRequest<DynamicObject> =
            review.try_into().map_err(|_| DecodeError::NoRequest)?;
        match overlong(&review) {
            Some(field) => Err(DecodeError::TooLong(field)),
            None => Ok(Self(review)),
        }
    }

    /// The pod, when the request creates one; the review no longer holds it then. Updates, subresources and other kinds are
    /// none of ours.
    ///
    /// # Errors
    /// When it cannot be represented as JSON.
    pub fn take_created_pod(&mut self) -> Result<Option<Value>, serde_json::Error> {
        let request = &self.0;
        let is_pod = request.kind.group.is_empty() && request.kind.kind == "Pod";
        if !is_pod || request.sub_resource.is_some() || request.operation != Operation::Create {
            return Ok(None);
        }
        self.take_object()
    }

    /// Takes the object as it is to be stored out of the review, when there is one, so that it is in memory once.
    ///
    /// # Errors
    /// When it cannot be represented as JSON.
    pub fn take_object(&mut self) -> Result<Option<Value>, serde_json::Error> {
        self.0.object.take().map(serde_json::to_value).transpose()
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
    ///
    /// # Errors
    /// When the answer cannot be written as JSON, as for the others.
    pub fn allow(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(AdmissionResponse::from(&self.0).into_review())
    }

    /// Lets the object through with the patch.
    ///
    /// # Errors
    /// See [`Self::allow`].
    pub fn allow_with(&self, patch: &Patch) -> Result<Value, serde_json::Error> {
        let mut review = self.allow()?;
        // Bytes in Go, so base64 in JSON; the library would write a list of numbers, four times as long.
        review["response"]["patch"] = STANDARD.encode(serde_json::to_vec(patch)?).into();
        review["response"]["patchType"] = "JSONPatch".into();
        Ok(review)
    }

    /// Lets the object through, and has whoever applies it warned.
    ///
    /// # Errors
    /// See [`Self::allow`].
    pub fn warn(&self, warning: &str) -> Result<Value, serde_json::Error> {
        let mut review = self.allow()?;
        review["response"]["warnings"] = vec![warning].into();
        Ok(review)
    }

    /// Refuses the object, with words for a person, which `more` follows.
    ///
    /// # Errors
    /// See [`Self::allow`].
    pub fn refuse(&self, refusal: &Refusal, more: &str) -> Result<Value, serde_json::Error> {
        self.deny(403, "Forbidden", format!("{} {more}", told(refusal)).trim_end())
    }

    /// Refuses for now: the operator cannot answer yet, and whoever asks is to try again.
    ///
    /// # Errors
    /// See [`Self::allow`].
    pub fn defer(&self, why: &str) -> Result<Value, serde_json::Error> {
        self.deny(503, "ServiceUnavailable", &format!("MailRoute: {why}"))
    }

    fn deny(&self, code: u16, reason: &str, message: &str) -> Result<Value, serde_json::Error> {
        let mut response = AdmissionResponse::from(&self.0).deny(message);
        response.result.code = code;
        response.result.reason = reason.to_owned();
        serde_json::to_value(response.into_review())
    }
}

/// The first of the texts that the answer, the log or a look-up repeats which is far too long.
fn overlong(request: &AdmissionRequest<DynamicObject>) -> Option<&'static str> {
    let metadata = request.object.as_ref().map(|object| &object.metadata);
    let label = metadata.and_then(|it| it.labels.as_ref()?.get(ROUTE_LABEL));
    let texts = [
        ("kind", Some(&request.types.kind)),
        ("request.uid", Some(&request.uid)),
        ("request.name", Some(&request.name)),
        ("request.namespace", request.namespace.as_ref()),
        ("metadata.name", metadata.and_then(|it| it.name.as_ref())),
        ("metadata.generateName", metadata.and_then(|it| it.generate_name.as_ref())),
        ("label mailroute.dev/route", label),
    ];
    let is_long = |text: Option<&String>| text.is_some_and(|text| text.len() > LONGEST_NAME);
    texts.into_iter().find(|(_, text)| is_long(*text)).map(|(field, _)| field)
}

/// A refusal as a person reads it: who speaks, what is wrong, what to do.
fn told(refusal: &Refusal) -> String {
    format!("MailRoute: {refusal} {}", refusal.remedy())
}

//! Who is given which certificate.

use std::time::Duration;

use axum::http::StatusCode;
use mailroute_route::identity::CERTIFICATE_SECONDS;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::stage::{Answer, BILLING, GATEWAY, Stage, WEB, WORKER, authority};

/// A request for the names of a gateway of another namespace, which nobody gets by asking.
fn csr() -> String {
    let params = CertificateParams::new(vec!["mail.billing.gateway.mailroute.internal".to_owned()]).unwrap();
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

#[track_caller]
fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let pem = answer.body["chainPem"].as_str().unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => (*name).to_owned(),
        other => other.to_string(),
    };
    names.iter().map(name).collect()
}

#[tokio::test]
async fn each_pod_gets_its_own_names_whatever_it_asks_for() {
    let stage = Stage::start().await;
    for (token, expected) in [
        (WEB, ["mail.shop.sidecar.mailroute.internal", "mailroute://shop/mail/sidecar/web-0"]),
        (GATEWAY, ["mail.shop.gateway.mailroute.internal", "mailroute://shop/mail/gateway/mail-gateway-0"]),
        (BILLING, ["mail.billing.sidecar.mailroute.internal", "mailroute://billing/mail/sidecar/web-0"]),
    ] {
        let answer = stage.certificate(token, "mail", &csr()).await;
        assert_eq!(names(&answer), expected);
        let expires_in = answer.body["expiresIn"].as_u64().unwrap();
        assert!((CERTIFICATE_SECONDS - 5..=CERTIFICATE_SECONDS).contains(&expires_in), "{expires_in}");
    }
    stage.counted("mailroute_certificate_requests_total{outcome=\"granted\"} 3");
}

#[tokio::test]
async fn nobody_gets_one_for_a_route_that_is_not_its_own_or_has_no_gateway() {
    let stage = Stage::start().await;
    for (token, route) in [
        (WORKER, "mail"),
        (WEB, "reports"),
        (WEB, "Mail"),
        (WEB, ""),
        // A pod without a route, and one that is gone and came again under the same name.
        ("shop/batch-1/uid-8", "mail"),
        ("shop/web-0/uid-0", "mail"),
    ] {
        let answer = stage.certificate(token, route, &csr()).await;
        assert!(answer.refused(StatusCode::FORBIDDEN).contains("mailroute.dev/route"), "{answer:?}");
    }
    stage.counted("mailroute_certificate_requests_total{outcome=\"forbidden\"} 6");
    let answer = stage.certificate(WORKER, "reports", &csr()).await;
    assert_eq!(answer.refused(StatusCode::FORBIDDEN), "the MailRoute has no gateway");
    let answer = stage.certificate("stolen", "mail", &csr()).await;
    answer.refused(StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_request_that_proves_no_key_is_refused() {
    let stage = Stage::start().await;
    let answer = stage.certificate(WEB, "mail", "nonsense").await;
    assert!(answer.refused(StatusCode::BAD_REQUEST).contains("PKCS #10"), "{answer:?}");
    let answer = stage.certificate(WEB, "mail", &"x".repeat(5000)).await;
    answer.refused(StatusCode::PAYLOAD_TOO_LARGE);
    stage.counted("mailroute_certificate_requests_total{outcome=\"malformed\"} 2");
}

#[tokio::test]
async fn none_outlives_the_ca_and_without_a_ca_there_is_none() {
    let stage = Stage::start().await;
    stage.sign_by(&authority(Duration::from_secs(3600)));
    let answer = stage.certificate(WEB, "mail", &csr()).await;
    assert!((3590..=3600).contains(&answer.body["expiresIn"].as_u64().unwrap()), "{answer:?}");
    stage.sign_by(&authority(Duration::ZERO));
    let message = "the operator has no CA yet that signs certificates of sidecars and gateways";
    for _ in 0..2 {
        let answer = stage.certificate(WEB, "mail", &csr()).await;
        assert_eq!(answer.refused(StatusCode::SERVICE_UNAVAILABLE), message);
        stage.signer.send_replace(None);
    }
}

#[tokio::test]
async fn a_pod_that_asks_too_often_is_told_to_wait_and_the_others_are_not() {
    let stage = Stage::start().await;
    let throttled = loop {
        let answer = stage.certificate(WEB, "mail", &csr()).await;
        if answer.status != StatusCode::OK {
            break answer;
        }
    };
    throttled.refused(StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(throttled.body["retryAfterSeconds"], 10);
    names(&stage.certificate(GATEWAY, "mail", &csr()).await);
}

//! What a route does to messages, as its sidecars read it. Pure.
//!
//! The schema's rules refuse the rest at `kubectl apply`; here it is asked again, as in [`super::validate`].

use mailroute_route::file::{self, SubmissionService};
use mailroute_route::header::{is_changeable, is_value};

use super::invalid::Invalid;
use crate::crd::MailRouteSpec;
use crate::crd::method::Method;
use crate::crd::rules::RecipientViolation;

/// Whom messages may go to.
pub(super) fn recipients(spec: &MailRouteSpec) -> Result<Option<file::Recipients>, Invalid> {
    let Some(rule) = &spec.recipients else { return Ok(None) };
    let redirect_to = match (rule.on_violation, &rule.redirect_to) {
        (RecipientViolation::Reject, _) => None,
        (RecipientViolation::Redirect, None) => return Err(Invalid::RedirectToNobody),
        (RecipientViolation::Redirect, Some(address)) if !reaches(spec, address) => {
            return Err(Invalid::OutOfReach("recipients.redirectTo"));
        }
        (RecipientViolation::Redirect, Some(address)) => Some(address.clone()),
    };
    Ok(Some(file::Recipients { allow: rule.allow.clone(), redirect_to }))
}

/// Who gets a copy of each message.
pub(super) fn archive(spec: &MailRouteSpec) -> Result<Option<file::Archive>, Invalid> {
    match &spec.archive {
        None => Ok(None),
        Some(archive) if !reaches(spec, &archive.bcc) => Err(Invalid::OutOfReach("archive.bcc")),
        Some(_) if spec.limits.max_recipients.is_some_and(|most| most < 2) => Err(Invalid::NoRoomForArchive),
        Some(archive) => Ok(Some(file::Archive { bcc: archive.bcc.clone() })),
    }
}

/// Header fields that are removed or set.
pub(super) fn headers(spec: &MailRouteSpec) -> Result<Option<file::Headers>, Invalid> {
    let Some(headers) = &spec.headers else { return Ok(None) };
    let mut names = headers.remove.iter().chain(headers.set.iter().map(|field| &field.name));
    if let Some(name) = names.find(|name| !is_changeable(name)) {
        return Err(Invalid::HeaderName(name.clone()));
    }
    if let Some(field) = headers.set.iter().find(|field| !is_value(&field.value)) {
        return Err(Invalid::HeaderValue(field.name.clone()));
    }
    Ok(Some(headers.clone().into()))
}

/// Whether the route's method reaches a recipient.
fn reaches(spec: &MailRouteSpec, address: &str) -> bool {
    let service = spec.client_submission.as_ref().map(|submission| submission.service);
    let is_internal =
        spec.method == Method::DirectSend || service == Some(SubmissionService::HighVolumeEmail);
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    !is_internal || spec.tenant.accepted_domains.iter().any(|ours| ours.eq_ignore_ascii_case(domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::MailRoute;
    use crate::crd::rules::{Archive, HeaderField, Headers, Recipients};
    use crate::resolve::{PlatformSettings, resolve};
    use crate::samples;

    fn redirected(mut route: MailRoute, to: Option<&str>) -> Result<Option<file::Recipients>, String> {
        route.spec.recipients = Some(Recipients {
            allow: vec!["*@contoso.com".into()],
            on_violation: RecipientViolation::Redirect,
            redirect_to: to.map(str::to_owned),
        });
        let resolution = resolve(&route, &PlatformSettings::default());
        resolution.route.map(|route| route.file.recipients).map_err(|error| error.to_string())
    }

    #[test]
    fn whom_messages_go_to_is_rendered() {
        let rule = |redirect_to: Option<&str>| {
            let redirect_to = redirect_to.map(str::to_owned);
            Some(file::Recipients { allow: vec!["*@contoso.com".into()], redirect_to })
        };
        assert_eq!(samples::resolved(&samples::route()).file.recipients, None);
        let staging = Some("staging@adatum.com");
        assert_eq!(redirected(samples::route(), staging), Ok(rule(staging)));
        let mut route = samples::route();
        let allow = vec!["*@contoso.com".to_owned()];
        let on_violation = RecipientViolation::Reject;
        route.spec.recipients = Some(Recipients { allow, on_violation, redirect_to: None });
        assert_eq!(samples::resolved(&route).file.recipients, rule(None));
    }

    #[test]
    fn nothing_is_redirected_to_nobody_or_out_of_reach() {
        let error = redirected(samples::route(), None).unwrap_err();
        assert!(error.starts_with("spec.recipients.redirectTo: "), "{error}");
        for route in [samples::direct(), samples::submitted_to(SubmissionService::HighVolumeEmail)] {
            let error = redirected(route.clone(), Some("staging@adatum.com")).unwrap_err();
            assert!(error.starts_with("spec.recipients.redirectTo: "), "{error}");
            assert!(redirected(route, Some("staging@Contoso.com")).is_ok());
        }
    }

    #[test]
    fn a_copy_goes_within_reach_and_has_room() {
        let archived = |mut route: MailRoute, bcc: &str| {
            route.spec.archive = Some(Archive { bcc: bcc.to_owned() });
            let resolution = resolve(&route, &PlatformSettings::default());
            resolution.route.map(|route| route.file.archive).map_err(|error| error.to_string())
        };
        let bcc = "archive@adatum.com";
        assert_eq!(archived(samples::route(), bcc), Ok(Some(file::Archive { bcc: bcc.into() })));
        let error = archived(samples::direct(), bcc).unwrap_err();
        assert!(error.starts_with("spec.archive.bcc: "), "{error}");
        let mut narrow = samples::route();
        narrow.spec.limits.max_recipients = Some(1);
        let error = archived(narrow, bcc).unwrap_err();
        assert!(error.starts_with("spec.limits.maxRecipients: "), "{error}");
    }

    #[test]
    fn only_fields_of_the_applications_own_are_changed() {
        let changed = |remove: &str, name: &str, value: &str| {
            let mut route = samples::route();
            let set = vec![HeaderField { name: name.into(), value: value.into() }];
            route.spec.headers = Some(Headers { remove: vec![remove.into()], set });
            let resolution = resolve(&route, &PlatformSettings::default());
            resolution.route.map(|route| route.file.headers.unwrap()).map_err(|error| error.to_string())
        };
        let headers = changed("X-Mailer", "Auto-Submitted", "auto-generated").unwrap();
        assert_eq!((headers.remove.len(), headers.set[0].value.as_str()), (1, "auto-generated"));
        for (remove, name, value) in [
            ("received", "X-Y", "z"),
            ("X-Y", "Bcc", "a@b"),
            ("X-Y", "X-Z", "z\r\nBcc: a@b"),
            ("X:Y", "X-Z", "z"),
        ] {
            let error = changed(remove, name, value).unwrap_err();
            assert!(error.starts_with("spec.headers: "), "{error}");
        }
    }
}

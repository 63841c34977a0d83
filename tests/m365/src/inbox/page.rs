//! The page's own files, which are part of the program.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

/// What the page may do: run and load its own files, and show the frame of a message. `require-trusted-types-for` makes
/// the browser refuse to take text for HTML, wherever the page's script would try.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asset {
    /// Where it is served.
    pub path: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! asset {
    ($path:literal, $kind:expr, $file:literal) => {
        Asset {
            path: concat!("/inbox/", $path),
            kind: $kind,
            text: include_str!(concat!("../../assets/inbox/", $file)),
        }
    };
}

/// Every file of the page.
pub(super) const ASSETS: [Asset; 11] = [
    asset!("", HTML, "index.html"),
    asset!("style.css", CSS, "style.css"),
    asset!("icon.svg", SVG, "icon.svg"),
    asset!("main.js", SCRIPT, "main.js"),
    asset!("api.js", SCRIPT, "api.js"),
    asset!("dom.js", SCRIPT, "dom.js"),
    asset!("live.js", SCRIPT, "live.js"),
    asset!("list.js", SCRIPT, "list.js"),
    asset!("message.js", SCRIPT, "message.js"),
    asset!("refusals.js", SCRIPT, "refusals.js"),
    asset!("faults.js", SCRIPT, "faults.js"),
];

impl IntoResponse for Asset {
    fn into_response(self) -> Response {
        let headers = [(header::CONTENT_TYPE, self.kind), (header::CONTENT_SECURITY_POLICY, POLICY)];
        (headers, self.text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    #[test]
    fn every_file_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/inbox");
        let files =
            fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let served = ASSETS.iter().map(|asset| match asset.path.trim_start_matches("/inbox/") {
            "" => "index.html".to_owned(),
            name => name.to_owned(),
        });
        assert_eq!(files.collect::<BTreeSet<_>>(), served.collect());
    }

    #[test]
    fn no_file_names_another_host_or_takes_text_for_html() {
        for asset in ASSETS {
            let text = asset.text.replace("http://www.w3.org/2000/svg", "");
            for word in
                ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"]
            {
                assert!(!text.contains(word), "{}: {word}", asset.path);
            }
        }
    }
}

//! The same work in many pods: a few at a time, with progress, and what could not be done named beside what was.

use futures::StreamExt;

use super::pods::RoutePod;
use crate::error::Error;
use crate::terminal::{Terminal, clean};

/// Pods that are worked on at the same time.
const AT_ONCE: usize = 8;

/// What came of the work in each pod, in the order of the pods.
#[derive(Debug)]
pub struct Outcome<T> {
    /// Where it was done.
    pub done: Vec<(RoutePod, T)>,
    /// Where it was not, and why.
    pub failed: Vec<(RoutePod, Error)>,
}

impl<T> Outcome<T> {
    /// One line for each pod where it was not done.
    pub fn complaints(&self) -> Vec<String> {
        self.failed.iter().map(|(pod, error)| complaint(pod, error)).collect()
    }
}

/// What went wrong with a pod, in one line that names it.
pub fn complaint(pod: &RoutePod, error: &Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix(&format!("{}: ", pod.name)).unwrap_or(&text).replace("\n  ", "; ");
    format!("pod {}: {}", clean(&pod.name), clean(&text))
}

/// Does `work` in each pod.
///
/// # Errors
/// When a right is missing, which all pods would say.
pub async fn each<T, F>(
    pods: Vec<RoutePod>,
    terminal: &mut Terminal<'_>,
    work: impl Fn(RoutePod) -> F,
) -> Result<Outcome<T>, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let all = pods.len();
    let work = |(at, pod): (usize, RoutePod)| {
        let done = work(pod.clone());
        async move { (at, pod, done.await) }
    };
    let mut running = futures::stream::iter(pods.into_iter().enumerate().map(work)).buffer_unordered(AT_ONCE);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    while let Some((at, pod, result)) = running.next().await {
        match result {
            Ok(value) => done.push((at, (pod, value))),
            Err(error @ Error::Denied { .. }) => {
                terminal.progress("");
                return Err(error);
            }
            Err(error) => failed.push((at, (pod, error))),
        }
        if all > 1 {
            terminal.progress(&format!("{} of {all} pods …", done.len() + failed.len()));
        }
    }
    terminal.progress("");
    Ok(Outcome { done: in_order(done), failed: in_order(failed) })
}

fn in_order<T>(mut items: Vec<(usize, T)>) -> Vec<T> {
    items.sort_by_key(|(at, _)| *at);
    items.into_iter().map(|(_, item)| item).collect()
}

#[cfg(test)]
mod tests {
    use mailroute_operator_core::samples;

    use super::*;
    use crate::error::Right;
    use crate::terminal::Style;

    fn pods(count: usize) -> Vec<RoutePod> {
        let pod = |n| RoutePod::of(&samples::pod(&format!("web-{n:02}"), "image")).unwrap();
        (0..count).map(pod).collect()
    }

    async fn run(
        count: usize,
        work: impl Fn(RoutePod) -> Result<String, Error>,
    ) -> (Result<Outcome<String>, Error>, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal =
            Terminal { out: &mut out, err: &mut err, style: Style::default(), shows_progress: true };
        let outcome = each(pods(count), &mut terminal, |pod| std::future::ready(work(pod))).await;
        (outcome, String::from_utf8(err).unwrap())
    }

    #[tokio::test]
    async fn one_pod_that_cannot_be_reached_does_not_spoil_the_rest() {
        let (outcome, progress) = run(20, |pod| match pod.name.as_str() {
            "web-07" => Err(Error::Exec { pod: pod.name, why: "no answer\x1b".into() }),
            _ => Ok(pod.name),
        })
        .await;
        let outcome = outcome.unwrap();
        assert_eq!(outcome.done.len(), 19);
        assert!(outcome.done.is_sorted_by_key(|(_, name)| name.clone()));
        assert_eq!(outcome.complaints(), ["pod web-07: no answer\u{fffd}"]);
        assert!(progress.contains("20 of 20 pods"), "{progress}");
    }

    #[tokio::test]
    async fn a_missing_right_is_said_once() {
        let right = || Right::new("create", "pods", Some("shop")).of("exec");
        let (outcome, _) = run(20, |_| Err(Error::Denied { right: right(), answer: "no".into() })).await;
        assert!(outcome.unwrap_err().is_denied());
    }
}

//! `mailroute-sidecar send`: a message through the listener of the sidecar beside it, and what is said about it.

use clap::Parser;
use mailroute_route::file::DeliveryMode::{DeliverOrQueue, Queue};
use mailroute_sidecar::args::{Cli, Command};
use mailroute_sidecar::cli::send::{self, report::Report};

use crate::kept::{SENDER, scene};
use crate::scene::Scene;

async fn sent(scene: &Scene, more: &[&str]) -> Report {
    let (route, port) = (scene.files.path("route.json"), scene.app.smtp_addresses()[0].port().to_string());
    let mut words = vec!["mailroute-sidecar", "send", "--route", route.to_str().unwrap()];
    if !more.contains(&"--port") {
        words.extend(["--port", &port]);
    }
    words.extend(more);
    let Command::Send(options) = Cli::parse_from(words).into_command() else {
        panic!("the command is send");
    };
    send::run(&options).await
}

#[tokio::test]
async fn a_message_is_sent_as_the_mailbox_and_each_step_is_told() {
    let scene = scene(DeliverOrQueue).await;
    let report = sent(&scene, &["--to", "ann@fabrikam.com", "--subject", "Grüße"]).await;
    assert!(report.accepted && report.queue_id.is_none() && report.error.is_none(), "{report:#?}");
    let steps: Vec<_> = report.steps.iter().map(|step| step.step).collect();
    assert_eq!(steps, ["connection", "EHLO", "MAIL", "RCPT", "DATA", "message"]);
    assert_eq!(report.from, format!("<{SENDER}>"));
    let arrived = scene.m365.messages();
    assert_eq!((arrived.len(), &arrived[0].message_id), (1, &report.message_id));
    scene.assert_careful();
}

#[tokio::test]
async fn a_message_that_is_stored_has_its_id_and_one_that_cannot_be_sent_the_error() {
    let scene = scene(Queue).await;
    let report = sent(&scene, &["--to", "ann@fabrikam.com"]).await;
    assert!(report.accepted && report.queue_id.is_some(), "{report:#?}");
    let lost = sent(&scene, &["--to", "ann@fabrikam.com", "--port", "1"]).await;
    assert!(!lost.accepted && lost.error.is_some(), "{lost:#?}");
}

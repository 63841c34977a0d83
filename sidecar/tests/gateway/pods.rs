//! Pods of one route: sidecars and gateways, each with a spool of its own, and the simulator as their upstream.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mailroute_m365::{Options, Rule, Simulator, SmtpAction, Stage};
use mailroute_route::RouteFile;
use mailroute_route::file::{Delivery, DeliveryMode, Gateway};
use mailroute_route::identity::Role;
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::args::Run;
use mailroute_sidecar::message::envelope::QueueId;
use mailroute_sidecar::outcome::queued::QueueFigures;
use mailroute_sidecar::queue::schedule::RetrySchedule;
use mailroute_sidecar::smtp::reply::Reply;

use crate::authority::{Authority, certified};
use crate::client::{Client, message};
use crate::control::Control;
use crate::kept::{SENDER, id_of};
use crate::scene::{Files, PATIENCE, intervals, surroundings};

pub const ANN: &str = "ann@fabrikam.com";
pub const BOB: &str = "bob@fabrikam.com";

/// All pods, and what they share.
pub struct Pods {
    pub m365: Simulator,
    pub control: Control,
    pub route: RouteFile,
    pub authority: Authority,
    _tokens: Files,
}

/// One of them.
pub struct Pod {
    pub app: App,
    pub files: Files,
    run: Run,
    intervals: Intervals,
    pem: String,
}

impl Pods {
    /// A route whose gateway has this host, which names a port: nobody is there yet.
    pub async fn new(host: &str, mode: DeliveryMode) -> Self {
        let mut options = Options::default();
        options.config.limits.messages_per_minute = 100_000;
        options.config.limits.recipients_per_day = 1_000_000;
        let (m365, control, mut route, tokens) = surroundings(options).await;
        let authority = Authority::new();
        route.delivery = Delivery::new(mode);
        route.gateway = Some(Gateway { host: host.to_owned(), ca_pem: authority.pem.clone() });
        Self { m365, control, route, authority, _tokens: tokens }
    }

    /// The same with one gateway that listens.
    pub async fn with_gateway(mode: DeliveryMode) -> (Self, Pod) {
        let mut pods = Self::new("127.0.0.1:1", mode).await;
        let gateway = pods.gateway("127.0.0.1:0").await;
        pods.found_at(&gateway.gateway_address().to_string());
        (pods, gateway)
    }

    /// Where pods that start from now on find the gateway.
    pub fn found_at(&mut self, host: &str) {
        self.route.gateway.as_mut().unwrap().host = host.to_owned();
    }

    /// One that knows of no other.
    pub async fn gateway(&self, address: &str) -> Pod {
        self.pod(Role::Gateway, "gateway-0", &["--gateway", address], intervals(), Files::new()).await
    }

    /// Two gateways on this address, each of which finds both.
    pub async fn two_gateways(&self, address: &str) -> (Pod, Pod) {
        let (first, second) = (self.gateway(address).await, self.gateway(address).await);
        let both = vec![first.gateway_address(), second.gateway_address()];
        for pod in [&first, &second] {
            pod.app.gateways().dial(both.clone());
        }
        (first, second)
    }

    pub async fn sidecar(&self) -> Pod {
        self.pod(Role::Sidecar, "web-0", &[], intervals(), Files::new()).await
    }

    /// A pod with a spool that may have been another's before it.
    pub async fn pod(
        &self,
        role: Role,
        name: &str,
        arguments: &[&str],
        intervals: Intervals,
        files: Files,
    ) -> Pod {
        let pod = self.bare(role, name, arguments, intervals, files).await;
        pod.app.identity().set(certified(&pod.pem));
        alone(&pod.app);
        pod
    }

    /// A pod that the operator issues no certificate for.
    pub async fn without_certificate(&self, arguments: &[&str]) -> Pod {
        let role = if arguments.is_empty() { Role::Sidecar } else { Role::Gateway };
        self.bare(role, "bare-0", arguments, intervals(), Files::new()).await
    }

    async fn bare(
        &self,
        role: Role,
        name: &str,
        arguments: &[&str],
        intervals: Intervals,
        files: Files,
    ) -> Pod {
        files.write_route(&self.route);
        let run = files.run(arguments);
        let pem = self.authority.signed(role, &self.route.name, name);
        let app = App::start(run.clone(), intervals).await.expect("the pod starts");
        Pod { app, files, run, intervals, pem }
    }

    /// Subjects of what arrived, sorted.
    pub fn arrived(&self) -> Vec<String> {
        let mut subjects = crate::kept::subjects(&self.m365);
        subjects.sort();
        subjects
    }

    /// To whom each message went, in the order in which they arrived.
    pub fn recipients(&self) -> Vec<Vec<String>> {
        let messages = self.m365.messages().into_iter();
        messages.map(|message| message.recipients.into_iter().map(|to| to.address).collect()).collect()
    }

    /// Waits until so many messages have arrived.
    pub async fn arrive(&self, count: usize) {
        let arrived =
            |office: &mailroute_m365::office::Office| (office.messages.len() >= count).then_some(());
        self.m365.wait_for(PATIENCE, arrived).await.expect("the messages arrive");
    }

    /// Something wrong at the next opportunities.
    pub fn fault(&self, stage: Stage, action: SmtpAction, times: u32) {
        use mailroute_m365::{Faults, SubmissionFaults};
        let submission =
            SubmissionFaults { rules: vec![Rule::times(stage, action, times)], ..<_>::default() };
        self.m365.set_faults(Faults { submission, ..<_>::default() });
    }
}

impl Pod {
    pub fn gateway_address(&self) -> SocketAddr {
        self.app.gateway_address().expect("this pod is a gateway")
    }

    /// Its certificate and key, whether they are in use or not.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Waits until it has nothing to report of gateways.
    pub async fn well(&self) {
        let mut errors = self.app.gateways().error();
        let well = tokio::time::timeout(PATIENCE, errors.wait_for(Option::is_none)).await.map(drop);
        assert!(well.is_ok(), "{:?}", self.app.gateways().error().borrow());
    }

    /// Sends one message, and gives the answer.
    pub async fn send(&self, to: &[&str], subject: &str) -> Reply {
        let mut client = Client::connect(self.app.smtp_addresses()[0]).await;
        client.send(SENDER, to, &message(subject)).await
    }

    /// Sends one message that is queued.
    pub async fn queued(&self, to: &[&str], subject: &str) -> QueueId {
        id_of(&self.send(to, subject).await)
    }

    /// Waits until the queue's figures are as wanted.
    pub async fn figures(&self, wanted: impl Fn(&QueueFigures) -> bool) -> QueueFigures {
        let started = Instant::now();
        loop {
            let figures = self.app.queue().figures();
            if wanted(&figures) {
                return figures;
            }
            assert!(started.elapsed() < PATIENCE, "still {figures:?}");
            let mut rounds = self.app.queue().rounds();
            let _ = tokio::time::timeout(Duration::from_millis(50), rounds.changed()).await;
        }
    }

    /// Stops the pod, and says how long that took. Its spool stays.
    pub async fn stopped(self) -> (Files, Duration) {
        let started = Instant::now();
        tokio::time::timeout(PATIENCE, self.app.stop()).await.expect("the stop ends");
        (self.files, started.elapsed())
    }

    /// The same pod after a stop and a start, on the same port where it is a gateway.
    pub async fn restarted(self) -> Self {
        let Self { app, files, mut run, intervals, pem } = self;
        run.gateway.gateway = app.gateway_address();
        app.stop().await;
        // A task that was cut off may hold the spool for a moment longer, as no process would.
        let started = Instant::now();
        let app = loop {
            match App::start(run.clone(), intervals).await {
                Ok(app) => break app,
                Err(error) if format!("{error:#}").contains("in use") && started.elapsed() < PATIENCE => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("the pod starts again: {error:#}"),
            }
        };
        app.identity().set(certified(&pem));
        alone(&app);
        Self { app, files, run, intervals, pem }
    }
}

/// A gateway is the only one until it is told of another.
fn alone(app: &App) {
    if let Some(own) = app.gateway_address() {
        app.gateways().dial(vec![own]);
    }
}

/// Times at which nothing is tried by itself for an hour.
pub fn patient() -> Intervals {
    let hour = Duration::from_secs(3600);
    let queue = RetrySchedule { first: hour, patient: hour, longest: hour, hold: hour };
    Intervals { queue, ..intervals() }
}

/// The messages on a shelf of a spool.
pub fn stored(files: &Files, shelf: &str) -> usize {
    let names = crate::kept::files(&files.path(""), shelf);
    names.iter().filter(|name| !name.ends_with(".state")).count()
}

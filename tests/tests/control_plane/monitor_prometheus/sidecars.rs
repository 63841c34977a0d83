//! Sidecars in this process: one that is well, and some in trouble, each of its own kind.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::alone::Alone;
use e2e::prometheus::Target;
use e2e::replica::until;
use mailroute_m365::{
    Faults, LoginAction, LoginFaults, Options, Rule, SmtpAction, Stage, SubmissionFaults, Token,
};
use mailroute_route::RouteFile;
use mailroute_route::file::{
    Archive, CertificateFiles, Chunking, ControlService, DeliveryMode, Durability, Gateway, HostName, Method,
    SmartHost, SmtpRelay, TlsMode,
};
use mailroute_route::paths;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{pod, replace};

/// Sidecars, with the name of each one's route.
pub(crate) struct Sidecars {
    well: Alone,
    troubled: Vec<(&'static str, Alone)>,
}

impl Sidecars {
    /// The one that is well, after its first mail.
    pub(crate) async fn well() -> Result<Self> {
        let archived =
            |route: &mut RouteFile| route.archive = Some(Archive { bcc: "archive@contoso.com".into() });
        let sidecars = Self { well: Alone::start(Options::default(), archived).await?, troubled: Vec::new() };
        sidecars.send_well().await?;
        Ok(sidecars)
    }

    /// Some more messages that arrive.
    pub(crate) async fn send_well(&self) -> Result<()> {
        for _ in 0..3 {
            let reply = send(self.well.smtp, &["ada@contoso.com"]).await?;
            ensure!(reply.starts_with("250"), "{reply}");
        }
        Ok(())
    }

    pub(crate) fn targets(&self) -> Vec<Target> {
        let target =
            |(route, alone): (&str, &Alone)| pod(alone.admin(), "shop", &format!("{route}-0"), Some(route));
        let troubled = self.troubled.iter().map(|(route, alone)| (*route, alone));
        [("well", &self.well)].into_iter().chain(troubled).map(target).collect()
    }

    /// Starts the others; most of them are well, for now.
    pub(crate) async fn in_trouble(&mut self) -> Result<()> {
        let small = |route: &mut RouteFile| {
            route.delivery.mode = DeliveryMode::DeliverOrQueue;
            route.delivery.max_spool_bytes = 24 * 1024;
        };
        let dead = |route: &mut RouteFile| {
            route.delivery.mode = DeliveryMode::Queue;
            route.delivery.dead_letters.keep = 1;
        };
        // Nobody signs its certificate, and no gateway is there.
        let stranded = |route: &mut RouteFile| {
            route.delivery.mode = DeliveryMode::DeliverOrQueue;
            route.delivery.durability = Durability::Gateway;
            route.gateway = Some(Gateway { host: "localhost".into(), ca_pem: String::new() });
        };
        let quota = |route: &mut RouteFile| route.limits.recipients_per_day = Some(5);
        let all = [
            ("held", faulty(Stage::EndOfData, "451 4.3.2 Try later", small).await?),
            ("stranded", faulty(Stage::EndOfData, "451 4.3.2 Try later", stranded).await?),
            ("refused", faulty(Stage::Rcpt, "550 5.1.10 Recipient not found", |_| {}).await?),
            ("dead", faulty(Stage::EndOfData, "554 5.2.0 Refused for good", dead).await?),
            (
                "throttled",
                faulty(Stage::Mail, "432 4.3.2 Concurrent connections limit exceeded", |_| {}).await?,
            ),
            ("quota", Alone::start(Options::default(), quota).await?),
            ("damaged", damaged().await?),
            ("certificate", with_certificate().await?),
            ("lonely", alone_in_the_cluster().await?),
            ("expiring", with_a_token_that_ends().await?),
        ];
        self.troubled.extend(all);
        Ok(())
    }

    /// Sends what is refused, put off or too much, and breaks what was well.
    pub(crate) async fn make_trouble(&self) -> Result<()> {
        replace(&self.of("lonely")?.folder().join(paths::ROUTE_KEY), "{}")?;
        for number in 0..8 {
            for route in ["held", "refused", "throttled", "stranded"] {
                // Nobody is asked about twice who was refused for good.
                send(self.of(route)?.smtp, &[&format!("person-{number}@contoso.com")]).await?;
            }
        }
        for _ in 0..3 {
            send(self.of("dead")?.smtp, &["ada@contoso.com"]).await?;
        }
        let five = ["a@contoso.com", "b@contoso.com", "c@contoso.com", "d@contoso.com", "e@contoso.com"];
        send(self.of("quota")?.smtp, &five).await?;
        self.ask_for_tokens().await
    }

    /// Sends until a token was asked for thrice in vain, each time a second or more after the last.
    async fn ask_for_tokens(&self) -> Result<()> {
        let expiring = self.of("expiring")?;
        until(async || {
            send(expiring.smtp, &["ada@contoso.com"]).await?;
            let exchanges = expiring.microsoft.exchanges();
            let refused = exchanges.iter().filter(|exchange| exchange.outcome != "Issued").count();
            ensure!(refused >= 3, "another token was asked for {refused} times");
            Ok(())
        })
        .await
    }

    fn of(&self, route: &str) -> Result<&Alone> {
        let found = self.troubled.iter().find(|(name, _)| *name == route);
        Ok(&found.with_context(|| route.to_owned())?.1)
    }
}

/// A Microsoft 365 that always gives this reply at this stage.
async fn faulty(stage: Stage, reply: &str, change: impl FnOnce(&mut RouteFile)) -> Result<Alone> {
    let alone = Alone::start(Options::default(), change).await?;
    let rules = vec![Rule::always(stage, SmtpAction::Reply(reply.to_owned().try_into()?))];
    let submission = SubmissionFaults { rules, ..SubmissionFaults::default() };
    alone.microsoft.set_faults(Faults { submission, ..Faults::default() });
    Ok(alone)
}

/// One with a token for twenty seconds, and no other is issued. Each message needs a log-in, and after some seconds each
/// log-in asks for another.
async fn with_a_token_that_ends() -> Result<Alone> {
    let mut options = Options::default();
    options.config.tokens.lifetime_seconds = 20;
    let alone = Alone::start(options, |_| {}).await?;
    let rules = vec![Rule::always(Stage::EndOfData, SmtpAction::CutAfterReply)];
    let submission = SubmissionFaults { rules, ..SubmissionFaults::default() };
    alone.microsoft.set_faults(Faults { submission: submission.clone(), ..Faults::default() });
    let reply = send(alone.smtp, &["ada@contoso.com"]).await?;
    ensure!(reply.starts_with("250"), "{reply}");
    // The federated credential is gone.
    let rules = vec![Rule::always(Token::Token, LoginAction::Aadsts(700_213))];
    let login = LoginFaults { rules, ..LoginFaults::default() };
    alone.microsoft.set_faults(Faults { submission, login, ..Faults::default() });
    Ok(alone)
}

/// A spool with a file that is no message any more.
async fn damaged() -> Result<Alone> {
    let spoil = |folder: &Path| {
        let corrupt = folder.join("spool/corrupt");
        fs::create_dir(&corrupt)?;
        fs::write(corrupt.join("1k0v20rrs91sz4h0yms"), "\0\0\0")
    };
    Alone::prepared(Options::default(), spoil, |_| {}).await
}

/// A relay by a certificate that ends next week.
async fn with_certificate() -> Result<Alone> {
    let key = rcgen::KeyPair::generate()?;
    let mut wanted = rcgen::CertificateParams::new(vec!["mail.contoso.com".to_owned()])?;
    let now = std::time::SystemTime::now();
    wanted.not_before = (now - Duration::from_secs(24 * 3600)).into();
    wanted.not_after = (now + Duration::from_secs(7 * 24 * 3600)).into();
    let certificate = wanted.self_signed(&key)?;
    let prepare = |folder: &Path| {
        fs::write(folder.join("tls.crt"), certificate.pem())?;
        fs::write(folder.join("tls.key"), key.serialize_pem())
    };
    let change = |route: &mut RouteFile| {
        let Method::ClientSubmission(submission) = &route.method else { return };
        let beside = |name| submission.endpoint.ca_file.as_deref().map(|ca| ca.with_file_name(name));
        let (certificate_file, key_file) =
            (beside("tls.crt").unwrap_or_default(), beside("tls.key").unwrap_or_default());
        let certificate = Some(CertificateFiles { certificate_file, key_file });
        let (host, accepted_domains) = (HostName::Fixed("localhost".into()), vec!["contoso.com".into()]);
        let smart_host =
            SmartHost { host, port: 9, tls: TlsMode::Required, ca_file: None, chunking: Chunking::default() };
        route.method = Method::SmtpRelay(SmtpRelay { certificate, accepted_domains, smart_host });
    };
    Alone::prepared(Options::default(), prepare, change).await
}

/// A sidecar whose operator cannot be reached.
async fn alone_in_the_cluster() -> Result<Alone> {
    let authority = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?.cert.pem();
    Alone::start(Options::default(), move |route| {
        let Method::ClientSubmission(submission) = &route.method else { return };
        let token_file = submission.authority.ca_file.clone().unwrap_or_default();
        // Discard (RFC 863), where nobody listens.
        let address = "localhost:9".to_owned();
        route.control = Some(ControlService { address, ca_pem: authority, token_file, leases: false });
    })
    .await
}

/// Sends a message as an application would, and returns the last reply.
async fn send(server: SocketAddr, recipients: &[&str]) -> Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(server).await?);
    let mut lines = vec!["EHLO app".to_owned(), "MAIL FROM:<noreply@contoso.com>".to_owned()];
    lines.extend(recipients.iter().map(|address| format!("RCPT TO:<{address}>")));
    lines.push("DATA".to_owned());
    lines.push("From: noreply@contoso.com\r\nSubject: one\r\n\r\none\r\n.".to_owned());
    let mut reply = read_reply(&mut stream).await?;
    for line in lines {
        stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        reply = read_reply(&mut stream).await?;
        if !reply.starts_with(['2', '3']) {
            break;
        }
    }
    Ok(reply)
}

async fn read_reply(stream: &mut BufReader<TcpStream>) -> Result<String> {
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line).await? > 0, "the sidecar closed");
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line);
        }
    }
}

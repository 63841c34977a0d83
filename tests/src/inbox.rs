//! The simulator's inbox page in a browser, with mail that really took the way through a sidecar.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use mailroute_m365::Options;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::alone::Alone;
use crate::browser::{Browser, Page};

/// The mailbox of the simulator's sample.
pub const SENDER: &str = "noreply@contoso.com";

/// A sidecar, the simulator behind it, and a browser with the inbox.
pub struct Inbox {
    /// What sends.
    pub alone: Alone,
    /// What shows.
    pub browser: Browser,
    /// The page.
    pub page: Page,
}

impl Inbox {
    /// Starts all three, with the list shown.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn open() -> Result<Self> {
        let (alone, browser) = tokio::try_join!(Alone::start(Options::default(), |_| ()), Browser::start())?;
        let page = browser.open(&format!("http://{}/", alone.microsoft.control_address())).await?;
        page.wait("document.getElementById('connection').textContent === 'Live'").await?;
        Ok(Self { alone, browser, page })
    }

    /// Sends a message to these recipients as an application would. The text has its header and ends its lines with CR LF.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn send(&self, recipients: &[&str], text: &str) -> Result<()> {
        send(self.alone.smtp, recipients, text).await
    }

    /// Waits until the list has so many messages.
    ///
    /// # Errors
    /// When it does not.
    pub async fn wait_for_messages(&self, count: usize) -> Result<()> {
        self.page.wait(&format!("document.querySelectorAll('#messages li').length === {count}")).await
    }

    /// The subjects in the list, from the top.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn subjects(&self) -> Result<Vec<String>> {
        self.page
            .value("[...document.querySelectorAll('#messages .subject')].map((one) => one.textContent)")
            .await
    }

    /// What has the focus: its id, or else its text.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn focus(&self) -> Result<String> {
        self.page.value("document.activeElement.id || document.activeElement.textContent").await
    }
}

/// A message of plain text.
#[must_use]
pub fn plain(subject: &str, text: &str) -> String {
    format!(
        "From: Contoso Shop <{SENDER}>\r\nTo: Ada <ada@example.com>\r\nSubject: {subject}\r\n\r\n{text}\r\n"
    )
}

/// Sends a message to these recipients through a sidecar.
///
/// # Errors
/// When it is refused.
pub async fn send(smtp: SocketAddr, recipients: &[&str], text: &str) -> Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(smtp).await?);
    reply(&mut stream, '2').await?;
    say(&mut stream, "EHLO shop.example", '2').await?;
    say(&mut stream, &format!("MAIL FROM:<{SENDER}>"), '2').await?;
    for recipient in recipients {
        say(&mut stream, &format!("RCPT TO:<{recipient}>"), '2').await?;
    }
    say(&mut stream, "DATA", '3').await?;
    let stuffed = text.replace("\r\n.", "\r\n..");
    say(&mut stream, &format!("{}\r\n.", stuffed.trim_end_matches("\r\n")), '2').await?;
    say(&mut stream, "QUIT", '2').await
}

async fn say(stream: &mut BufReader<TcpStream>, line: &str, expected: char) -> Result<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await?;
    reply(stream, expected).await
}

async fn reply(stream: &mut BufReader<TcpStream>, expected: char) -> Result<()> {
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line).await? > 0, "the connection was closed");
        ensure!(line.starts_with(expected), "{line}");
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}

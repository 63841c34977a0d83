//! An application: plain SMTP to the sidecar, one reply at a time.

use std::net::SocketAddr;

use mailroute_sidecar::smtp::reply::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects and says EHLO.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the sidecar listens");
        let mut this = Self { stream, buffer: Vec::new() };
        assert_eq!(this.reply().await.code, 220);
        assert_eq!(this.command("EHLO app.example").await.code, 250);
        this
    }

    pub async fn reply(&mut self) -> Reply {
        loop {
            if let Some((reply, taken)) = Reply::parse(&self.buffer).expect("a reply") {
                self.buffer.drain(..taken);
                return reply;
            }
            assert_ne!(
                self.stream.read_buf(&mut self.buffer).await.expect("readable"),
                0,
                "the sidecar closed the connection"
            );
        }
    }

    pub async fn command(&mut self, line: &str) -> Reply {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await.expect("writable");
        self.reply().await
    }

    /// Sends one message, dot-stuffed here, and gives the answer to it.
    pub async fn send(&mut self, from: &str, to: &[&str], message: &str) -> Reply {
        self.offer(from, to).await;
        self.finish(message).await
    }

    /// Everything before the data.
    pub async fn offer(&mut self, from: &str, to: &[&str]) {
        assert_eq!(self.command(&format!("MAIL FROM:<{from}>")).await.code, 250);
        for to in to {
            assert_eq!(self.command(&format!("RCPT TO:<{to}>")).await.code, 250, "{to}");
        }
        assert_eq!(self.command("DATA").await.code, 354);
    }

    /// The data and its answer.
    pub async fn finish(&mut self, message: &str) -> Reply {
        assert!(message.ends_with("\r\n"), "a message ends with a line end");
        let stuffed = message.replace("\r\n.", "\r\n..");
        self.command(&format!("{stuffed}.")).await
    }
}

/// A message from the sample mailbox, with everything in it that Exchange asks for.
pub fn message(subject: &str) -> String {
    format!(
        "From: <noreply@contoso.com>\r\nTo: <ann@fabrikam.com>\r\nSubject: {subject}\r\nDate: Sat, 21 Nov 2026 09:00:00 \
         +0000\r\nMessage-ID: <{subject}@contoso.com>\r\n\r\nHello,\r\n.leading dot\r\n..\r\n\r\nend\r\n"
    )
}

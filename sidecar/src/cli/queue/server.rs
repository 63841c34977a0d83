//! The running program's end of the socket: a few connections, one request on each, everything bounded.
//!
//! Refuses to know what requests mean ([`super::handler`]). A command that was read is carried out even when whoever
//! sent it hangs up; only reading and writing have time limits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::handler::{QueueHandler, Reply};
use super::protocol::{self, MAX_REQUEST_BYTES, Request};
use crate::cli::socket::Listening;
use crate::message::body::Body;

/// Connections at a time: some people and their scripts. More wait until one ends.
const MAX_CONNECTIONS: usize = 4;

/// Time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct CommandTimeouts {
    /// For the request to be there.
    pub request: Duration,
    /// For an answer to be taken, and for each piece of a message's octets.
    pub answer: Duration,
}

impl Default for CommandTimeouts {
    fn default() -> Self {
        // A program writes its request at once. A person may stop a terminal for a moment.
        Self { request: Duration::from_secs(5), answer: Duration::from_secs(30) }
    }
}

/// What serves the socket. The name goes first, the spool with its lock later, so that no other program's socket is
/// removed.
pub struct CommandServer {
    /// The socket.
    pub listening: Listening,
    /// What does as asked.
    pub handler: Arc<QueueHandler>,
    /// How long to wait for the other end.
    pub timeouts: CommandTimeouts,
}

impl CommandServer {
    /// Serves until `stop`, then finishes what was begun.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut stopped = stop.clone();
        let accept = async {
            while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
                match self.listening.accept().await {
                    Ok(stream) => {
                        let (handler, stop, timeouts) =
                            (Arc::clone(&self.handler), stop.clone(), self.timeouts);
                        connections.spawn(async move {
                            // What goes wrong here went wrong at the other end, which knows.
                            let _ = converse(stream, &handler, timeouts, stop).await;
                            drop(permit);
                        });
                        while connections.try_join_next().is_some() {}
                    }
                    // Out of descriptors, most likely: there may be some again.
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped.wait_for(|&stop| stop) => {}
        }
        drop(self.listening);
        while connections.join_next().await.is_some() {}
    }
}

async fn converse(
    mut stream: UnixStream,
    handler: &QueueHandler,
    timeouts: CommandTimeouts,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let asked = tokio::select! {
        asked = timeout(timeouts.request, request(&mut stream)) => asked,
        _ = stop.wait_for(|&stop| stop) => return Ok(()),
    };
    let reply = match asked {
        Ok(Ok(Some(request))) => handler.answer(request, &stop).await,
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(why)) => Reply::refused(why),
        Err(_) => Reply::refused(format!("no request within {} seconds", timeouts.request.as_secs_f64())),
    };
    let line = protocol::line(&reply.answer);
    timeout(timeouts.answer, stream.write_all(&line)).await??;
    match reply.content {
        Some(body) => tokio::select! {
            sent = send(&mut stream, &body, timeouts.answer) => sent,
            _ = stop.wait_for(|&stop| stop) => Ok(()),
        },
        None => Ok(()),
    }
}

/// The request; `None` when the other end only looked in.
async fn request(stream: &mut UnixStream) -> Result<Option<Request>, String> {
    let mut line = Vec::new();
    // The end of the line counts, too.
    let most = MAX_REQUEST_BYTES as u64;
    let read = BufReader::new(stream.take(most)).read_until(b'\n', &mut line).await;
    match read {
        Err(error) => Err(error.to_string()),
        Ok(0) => Ok(None),
        Ok(_) if !line.ends_with(b"\n") => Err(format!("no line of at most {MAX_REQUEST_BYTES} octets")),
        Ok(_) => serde_json::from_slice(&line).map(Some).map_err(|error| format!("not a request: {error}")),
    }
}

async fn send(stream: &mut UnixStream, body: &Body, timeouts: Duration) -> io::Result<()> {
    let mut reader = body.reader();
    while let Some(piece) = reader.next().await? {
        timeout(timeouts, stream.write_all(&piece)).await??;
    }
    Ok(())
}

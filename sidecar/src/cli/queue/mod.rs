//! `mailroute-sidecar queue`: a person looks at what is kept, tries it again, or drops it.
//!
//! ```text
//!  queue <verb> ── ask ──► socket ──► serve ──► running ──► crate::queue        while a sidecar runs
//!                   └────────────────────────► at_rest ──► spool (read only)   when none does
//! ```
//!
//! * [`protocol`], [`listing`]: what is said, as plain data. [`mod@print`]: answers → text, JSON. Pure.
//! * [`server`], [`handler`]: the end in the program that runs, over a [socket](crate::cli::socket). [`offline`]: the same from the disk.
//! * [`client`]: the end in the command. Here: the verbs.
//!
//! Invariants: only the program that holds the spool changes it; a message leaves it only for a person who named it; no
//! octet of a message is logged.

pub mod client;
pub mod handler;
pub mod listing;
pub mod offline;
pub mod print;
pub mod protocol;
pub mod server;

use std::io::{self, Write};

use client::{AskError, Asked, Content, ask};
use print::List;
use protocol::{Answer, Chosen, Id, Part, Request};

use crate::args::Output;
use crate::args::queue::{self as options, Queue, Verb};
use crate::clock;
use crate::message::envelope::QueueId;
use crate::route_deleted::RouteDeleted;

/// Why a command did not do all that it was to do.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no answer, or a refusal.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Another answer than was asked for.
    #[error("the sidecar's answer does not match the request")]
    OtherAnswer,
    /// The options do not go together.
    #[error("--body does not work with -o json; use `queue export`")]
    BodyAsJson,
    /// The answer has nowhere to go.
    #[error("the answer cannot be written")]
    Write(#[from] io::Error),
}

impl CommandError {
    /// 2 for a mistake on the command line, else 1.
    pub const fn exit_code(&self) -> u8 {
        if matches!(self, Self::BodyAsJson) { 2 } else { 1 }
    }
}

/// Does what `options` ask for and writes the answer to `out`. Says whether all of it was done.
///
/// # Errors
/// When there is no answer, it is a refusal, or it cannot be written.
pub async fn run(options: &Queue, out: &mut impl Write) -> Result<bool, CommandError> {
    let command = Command { options };
    let written = match &options.verb {
        Verb::List(parts) => command.list(*parts, out).await,
        Verb::Show { id, body } => command.show(id, *body, out).await,
        Verb::Export { id } => command.export(id, out).await,
        Verb::Retry(retry) => {
            let chosen = if retry.corrupt { Chosen::Corrupt } else { chosen(&retry.ids, retry.all) };
            command.change(Request::Retry(chosen), "will be tried now", out).await
        }
        Verb::Drop(drop) => {
            let most = if drop.yes { None } else { Some(1) };
            command.change(Request::Drop { chosen: chosen(&drop.ids, false), most }, "dropped", out).await
        }
    };
    match written {
        // `queue list | head`: whoever reads has seen enough.
        Err(CommandError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        written => written,
    }
}

struct Command<'a> {
    options: &'a Queue,
}

impl Command<'_> {
    async fn ask(&self, request: Request) -> Result<Asked, AskError> {
        ask(&self.options.spool_dir, request).await
    }

    async fn list(&self, which: options::List, out: &mut impl Write) -> Result<bool, CommandError> {
        let route_deleted = RouteDeleted::new(&self.options.spool_dir).is_noted();
        let mut list = List { running: true, messages: vec![], corrupt: vec![], route_deleted };
        let mut now = clock::timestamp();
        let parts = [(Part::Waiting, !which.dead), (Part::Dead, !which.waiting)];
        for (part, _) in parts.into_iter().filter(|(_, wanted)| *wanted) {
            let mut after = None;
            loop {
                let asked = self.ask(Request::List { part, after }).await?;
                let Answer::Page(page) = asked.answer else { return Err(CommandError::OtherAnswer) };
                list.running &= asked.running;
                list.messages.extend(page.rows);
                now = page.now;
                if which.dead == which.waiting {
                    list.corrupt.extend(page.corrupt);
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        let text = match self.options.output {
            Output::Text => print::list(&list, now),
            Output::Json => print::json(&list),
        };
        out.write_all(text.as_bytes())?;
        Ok(true)
    }

    async fn show(&self, id: &QueueId, body: bool, out: &mut impl Write) -> Result<bool, CommandError> {
        if body && self.options.output == Output::Json {
            return Err(CommandError::BodyAsJson);
        }
        let asked = self.ask(Request::Show(Id(id.clone()))).await?;
        let Answer::Message(mut message) = asked.answer else { return Err(CommandError::OtherAnswer) };
        if body {
            // It comes with the content.
            message.header.clear();
        }
        let text = match self.options.output {
            Output::Text => print::message(&message, clock::timestamp()),
            Output::Json => print::json(&message),
        };
        out.write_all(text.as_bytes())?;
        if body {
            let mut content = self.content(id).await?;
            let mut terminal = print::Terminal::default();
            while let Some(piece) = content.next().await? {
                out.write_all(terminal.show(&piece).as_bytes())?;
            }
        }
        Ok(true)
    }

    async fn export(&self, id: &QueueId, out: &mut impl Write) -> Result<bool, CommandError> {
        let mut content = self.content(id).await?;
        while let Some(piece) = content.next().await? {
            out.write_all(&piece)?;
        }
        out.flush()?;
        Ok(true)
    }

    async fn content(&self, id: &QueueId) -> Result<Content, CommandError> {
        self.ask(Request::Export(Id(id.clone()))).await?.content.ok_or(CommandError::OtherAnswer)
    }

    async fn change(&self, request: Request, done: &str, out: &mut impl Write) -> Result<bool, CommandError> {
        let Answer::Changed(changed) = self.ask(request).await?.answer else {
            return Err(CommandError::OtherAnswer);
        };
        let text = match self.options.output {
            Output::Text => print::changed(&changed, done, clock::timestamp()),
            Output::Json => print::json(&changed),
        };
        out.write_all(text.as_bytes())?;
        Ok(changed.failed.is_empty())
    }
}

fn chosen(ids: &[QueueId], all: bool) -> Chosen {
    match ids {
        [] if all => Chosen::Waiting,
        [] => Chosen::Dead,
        ids => Chosen::Ids(ids.iter().cloned().map(Id).collect()),
    }
}

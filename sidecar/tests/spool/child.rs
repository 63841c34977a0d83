//! This test program once more, as a process of its own that may be killed or be short of something.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use jiff::Timestamp;
use mailroute_sidecar::message::body::{Body, Scratch, Writer};
use mailroute_sidecar::message::envelope::{Address, BodyType, Envelope, QueueId, ReversePath};
use mailroute_sidecar::spool::{Entry, Kind, SpoolLimits};

/// Names the directory that the child works in. Absent: it is nobody's child.
const DIRECTORY: &str = "MAILROUTE_TEST_SPOOL";

pub const PLENTY: SpoolLimits = SpoolLimits { max_bytes: u64::MAX, keep_dead: 1000 };

/// The command that runs only the ignored test `name`, in `directory`.
pub fn command(name: &str, directory: &Path) -> Command {
    in_shell(name, directory, "exec \"$@\"", &["sh"])
}

/// The same, behind what `script` does first. It ends in `exec "$@"`.
pub fn in_shell(name: &str, directory: &Path, script: &str, shell: &[&str]) -> Command {
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).args(["-c", script, "sh"]).arg(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(DIRECTORY, directory);
    command
}

/// Runs it to its end, which has to be a good one.
pub fn succeeds(mut command: Command) {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", output.status);
}

/// Where a child is to work; `None` when nobody started this as a child.
pub fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// The entry of message number `n`.
pub fn entry(n: u64) -> Entry {
    let accepted = Timestamp::from_microsecond(1_800_000_000_000_000 + i64::try_from(n).unwrap()).unwrap();
    let address = |text: &str| Address::parse(text).unwrap();
    let envelope = Envelope {
        id: QueueId::new(accepted, n),
        message_id: format!("<{n}@contoso.com>"),
        client_name: "app".into(),
        reverse_path: ReversePath::Address(address("noreply@contoso.com")),
        recipients: vec![address("a@b.example"), address("c@d.example")],
        body: BodyType::SevenBit,
        smtp_utf8: false,
        size: None,
        archive: None,
        mailbox: None,
    };
    Entry { envelope, kind: Kind::Message, accepted }
}

/// The octets of message number `n`: every seventh is larger than what stays in memory.
pub fn octets(n: u64) -> Vec<u8> {
    let len = if n.is_multiple_of(7) { 150_000 } else { 300 + n as usize % 4000 };
    (0..len).map(|at| (at as u64 * 31 + n) as u8).collect()
}

/// A body of these octets, as it comes in.
pub async fn body(scratch: Arc<dyn Scratch>, octets: &[u8]) -> Body {
    let mut writer = Writer::new(scratch);
    for piece in octets.chunks(16_384) {
        writer.buffer().extend_from_slice(piece);
        writer.spill().await.unwrap();
    }
    writer.finish("").await.unwrap()
}

/// All octets of a body.
pub async fn contents(body: &Body) -> Vec<u8> {
    let (mut reader, mut all) = (body.reader(), Vec::new());
    while let Some(piece) = reader.next().await.unwrap() {
        all.extend_from_slice(&piece);
    }
    all
}

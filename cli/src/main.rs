//! The program: its name, its arguments, the terminal, and the exit code.

use std::io;
use std::process::ExitCode;

use mailroute_cli::terminal::Terminal;

fn main() -> io::Result<ExitCode> {
    // One thread: it mostly waits for an API server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let (mut out, mut err) = (io::stdout(), io::stderr());
        let mut terminal = Terminal::of_process(&mut out, &mut err);
        mailroute_cli::run(std::env::args_os(), &mut terminal).await
    });
    // What still reads standard input or a name server is not waited for.
    runtime.shutdown_background();
    Ok(ExitCode::from(code))
}

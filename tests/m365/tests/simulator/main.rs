//! The simulator over real sockets and TLS: dialogs, token endpoint, submission, control API.

#[cfg(test)]
mod client;
#[cfg(test)]
mod control;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod dialogs;
#[cfg(test)]
mod dns;
#[cfg(test)]
mod graph;
#[cfg(test)]
mod inbox;
#[cfg(test)]
mod login;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod submission;
#[cfg(test)]
mod wire;

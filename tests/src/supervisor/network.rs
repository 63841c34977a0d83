//! A cluster's network: a namespace of its own, joined to this machine by a veth pair.
//!
//! ```text
//!  this machine ── mrN 10.77.N.1/30 ═══ eth0 10.77.N.2 ── node ── pods 10.78.N.0/24, Services 10.79.N.0/24
//! ```
//! Every address follows from one number, so clusters stand side by side and inside each the ports are always the
//! usual ones. This machine has routes to pods and Services; nothing in the cluster has a way further than this machine.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::tools::search_path;

/// The addresses of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    number: u8,
}

impl Network {
    /// This machine, seen from the cluster.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 1)
    }

    /// The node, seen from this machine.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 2)
    }

    /// Addresses of pods.
    pub fn pods(self) -> String {
        format!("10.78.{}.0/24", self.number)
    }

    /// Addresses of Services.
    pub fn services(self) -> String {
        format!("10.79.{}.0/24", self.number)
    }

    /// The Service `kubernetes`, which gets the first address.
    pub fn kubernetes_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 79, self.number, 1)
    }

    /// This machine's end of the pair.
    pub fn interface(self) -> String {
        format!("mr{}", self.number)
    }

    fn prefixes(self) -> [String; 3] {
        [77, 78, 79].map(|second| format!("10.{second}.{}.", self.number))
    }
}

/// The first network that no cluster has and that no address or route of this machine is in.
///
/// # Errors
/// When there is none left.
pub fn free(taken: &[Network]) -> Result<Network> {
    let used = output(&["ip", "-4", "-oneline", "address"])?
        + &output(&["ip", "-4", "route", "show", "table", "all"])?;
    first_free(taken, &used).context("all 256 subnets from 10.77.0.0/16 to 10.79.0.0/16 are in use")
}

fn first_free(taken: &[Network], used: &str) -> Option<Network> {
    let is_used = |network: &Network| {
        let mut words = used.split_whitespace();
        words.any(|word| network.prefixes().iter().any(|prefix| word.starts_with(prefix.as_str())))
    };
    (0..=u8::MAX)
        .map(|number| Network { number })
        .find(|network| !taken.contains(network) && !is_used(network))
}

/// Makes the namespace, kept by a file, and joins it to this machine.
///
/// # Errors
/// When the machine does not allow it.
pub fn make(network: Network, namespace: &Path) -> Result<()> {
    File::create(namespace)?;
    let file = namespace.display().to_string();
    let (link, host, node) = (network.interface(), network.host(), network.node().to_string());
    let inside = format!(
        "ip link set lo up\n\
         ip address add {node}/30 dev eth0\n\
         ip link set eth0 up\n\
         ip route add default via {host}\n\
         echo 1 > /proc/sys/net/ipv4/ip_forward\n"
    );
    run(&["unshare", &format!("--net={file}"), "true"])?;
    run(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &file])?;
    run(&["ip", "address", "add", &format!("{host}/30"), "dev", &link])?;
    run(&["ip", "link", "set", &link, "up"])?;
    run(&["nsenter", &format!("--net={file}"), "sh", "-ec", &inside])?;
    run(&["ip", "route", "add", &network.pods(), "via", &node])?;
    run(&["ip", "route", "add", &network.services(), "via", &node])
}

/// Removes the pair, with it the routes, and the namespace. What is not there is not missed.
///
/// # Errors
/// When the namespace cannot be removed.
pub fn remove(network: Network, namespace: &Path) -> Result<()> {
    if Path::new("/sys/class/net").join(network.interface()).exists() {
        run(&["ip", "link", "delete", &network.interface()])?;
    }
    if namespace.exists() {
        // Not a mount yet when the start was cut short before it became one.
        let _ = rustix::mount::unmount(namespace, rustix::mount::UnmountFlags::DETACH);
        fs::remove_file(namespace)?;
    }
    Ok(())
}

fn run(arguments: &[&str]) -> Result<()> {
    output(arguments).map(|_| ())
}

fn output(arguments: &[&str]) -> Result<String> {
    let (program, rest) = arguments.split_first().context("a command has a program")?;
    let mut command = Command::new(program);
    command.args(rest).env("PATH", search_path()).stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}; `tests/cluster/setup cluster` installs it"))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_of_this_machine_or_of_another_cluster_is_not_taken() {
        let used = "2: eth0 inet 10.77.0.9/24 brd 10.77.0.255\n10.78.2.0/24 via 192.0.2.1 dev eth0\n";
        assert_eq!(first_free(&[Network { number: 1 }], used), Some(Network { number: 3 }));
    }

    #[test]
    fn the_longer_number_is_not_mistaken_for_the_shorter() {
        assert_eq!(first_free(&[], "10.77.10.0/24 dev eth0"), Some(Network { number: 0 }));
        assert_eq!(
            first_free(&[Network { number: 0 }], "10.77.10.0/24 dev eth0"),
            Some(Network { number: 1 })
        );
    }
}

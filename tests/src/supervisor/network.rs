//! A cluster's network: a namespace of its own, joined to this machine by a veth pair.
//!
//! ```text
//!  this machine ── mrN 10.77.N.1/30 ═══ eth0 10.77.N.2 ── node ── pods 10.78.N.0/24, Services 10.79.N.0/24
//!                  fd4d:77:N::1/64           fd4d:77:N::2          fd4d:78:N::/64         fd4d:79:N::/112
//! ```
//! A cluster has addresses of one family only. Every address follows from one number, so clusters stand side by side and
//! inside each the ports are always the usual ones. This machine has routes to pods and Services; nothing in the cluster has
//! a way further than this machine.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::description::Family;
use crate::tools::search_path;

/// First segment of all addresses of IPv6: a unique local prefix (RFC 4193).
const UNIQUE_LOCAL: u16 = 0xfd4d;

/// The addresses of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    number: u8,
    #[serde(default)]
    family: Family,
}

/// What addresses are for.
#[derive(Clone, Copy)]
enum Part {
    Link,
    Pods,
    Services,
}

impl Network {
    /// This machine, seen from the cluster.
    pub fn host(self) -> IpAddr {
        self.address(Part::Link, 1)
    }

    /// The node, seen from this machine.
    pub fn node(self) -> IpAddr {
        self.address(Part::Link, 2)
    }

    /// Addresses of pods.
    pub fn pods(self) -> String {
        format!("{}/{}", self.address(Part::Pods, 0), self.family.length(24, 64))
    }

    /// Addresses of Services.
    pub fn services(self) -> String {
        format!("{}/{}", self.address(Part::Services, 0), self.family.length(24, 112))
    }

    /// The Service `kubernetes`, which gets the first address.
    pub fn kubernetes_service(self) -> IpAddr {
        self.address(Part::Services, 1)
    }

    /// Any address of the family: a destination for which there is one way.
    pub fn everywhere(self) -> &'static str {
        match self.family {
            Family::Ipv4 => "0.0.0.0/0",
            Family::Ipv6 => "::/0",
        }
    }

    /// All addresses that a program can listen on.
    pub fn any(self) -> IpAddr {
        match self.family {
            Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// The node to itself.
    pub fn loopback(self) -> IpAddr {
        match self.family {
            Family::Ipv4 => Ipv4Addr::LOCALHOST.into(),
            Family::Ipv6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// This machine's end of the pair.
    pub fn interface(self) -> String {
        format!("mr{}", self.number)
    }

    fn address(self, part: Part, last: u8) -> IpAddr {
        let (second, segment) = match part {
            Part::Link => (77, 0x77),
            Part::Pods => (78, 0x78),
            Part::Services => (79, 0x79),
        };
        match self.family {
            Family::Ipv4 => Ipv4Addr::new(10, second, self.number, last).into(),
            Family::Ipv6 => {
                let [number, last] = [self.number, last].map(u16::from);
                Ipv6Addr::new(UNIQUE_LOCAL, segment, number, 0, 0, 0, 0, last).into()
            }
        }
    }

    fn prefixes(self) -> [String; 3] {
        [Part::Link, Part::Pods, Part::Services].map(|part| match self.address(part, 0) {
            IpAddr::V4(_) => self.address(part, 0).to_string().trim_end_matches('0').to_owned(),
            IpAddr::V6(address) => address.to_string(),
        })
    }
}

impl Family {
    /// The option of `ip`.
    const fn option(self) -> &'static str {
        match self {
            Self::Ipv4 => "-4",
            Self::Ipv6 => "-6",
        }
    }

    /// The setting of the kernel by which a machine passes packets on.
    const fn forwarding(self) -> &'static str {
        match self {
            Self::Ipv4 => "net/ipv4/ip_forward",
            Self::Ipv6 => "net/ipv6/conf/all/forwarding",
        }
    }

    const fn length(self, ipv4: u8, ipv6: u8) -> u8 {
        match self {
            Self::Ipv4 => ipv4,
            Self::Ipv6 => ipv6,
        }
    }
}

/// The first network that no cluster has and that no address or route of this machine is in.
///
/// # Errors
/// When there is none left.
pub fn free(family: Family, taken: &[Network]) -> Result<Network> {
    let used = output(&["ip", family.option(), "-oneline", "address"])?
        + &output(&["ip", family.option(), "route", "show", "table", "all"])?;
    first_free(family, taken, &used).context("all 256 subnets of the harness are in use")
}

fn first_free(family: Family, taken: &[Network], used: &str) -> Option<Network> {
    let is_used = |network: &Network| {
        let mut words = used.split_whitespace();
        words.any(|word| network.prefixes().iter().any(|prefix| word.starts_with(prefix.as_str())))
    };
    // The number is in the name of the interface, too, whatever the family.
    let is_taken = |network: &Network| taken.iter().any(|other| other.number == network.number);
    (0..=u8::MAX)
        .map(|number| Network { number, family })
        .find(|network| !is_taken(network) && !is_used(network))
}

/// Makes the namespace, kept by a file, and joins it to this machine.
///
/// # Errors
/// When the machine does not allow it.
pub fn make(network: Network, namespace: &Path) -> Result<()> {
    File::create(namespace)?;
    let file = namespace.display().to_string();
    let (link, host, node) = (network.interface(), network.host(), network.node().to_string());
    let (ip, length) = (network.family.option(), network.family.length(30, 64));
    // Nobody else is on the link, so there is no duplicate to look for (RFC 4862 §5.4), which takes a second.
    let flag = if host.is_ipv6() { " nodad" } else { "" };
    let inside = format!(
        "ip link set lo up\n\
         ip {ip} address add {node}/{length} dev eth0{flag}\n\
         ip link set eth0 up\n\
         ip {ip} route add default via {host}\n\
         echo 1 > /proc/sys/{}\n",
        network.family.forwarding()
    );
    let outside = format!("ip {ip} address add {host}/{length} dev {link}{flag}");
    run(&["unshare", &format!("--net={file}"), "true"])?;
    run(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &file])?;
    run(&outside.split(' ').collect::<Vec<_>>())?;
    run(&["ip", "link", "set", &link, "up"])?;
    run(&["nsenter", &format!("--net={file}"), "sh", "-ec", &inside])?;
    run(&["ip", ip, "route", "add", &network.pods(), "via", &node])?;
    run(&["ip", ip, "route", "add", &network.services(), "via", &node])
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

    fn ipv4(number: u8) -> Network {
        Network { number, family: Family::Ipv4 }
    }

    #[test]
    fn a_subnet_of_this_machine_or_of_another_cluster_is_not_taken() {
        let used = "2: eth0 inet 10.77.0.9/24 brd 10.77.0.255\n10.78.2.0/24 via 192.0.2.1 dev eth0\n";
        let other = Network { number: 1, family: Family::Ipv6 };
        assert_eq!(first_free(Family::Ipv4, &[other], used), Some(ipv4(3)));
        let used = "2: eth0 inet6 fd4d:77::9/64 scope global\nfd4d:78:1::/64 via fd4d:77:1::2 dev mr1\n";
        assert_eq!(first_free(Family::Ipv6, &[], used), Some(Network { number: 2, family: Family::Ipv6 }));
    }

    #[test]
    fn the_longer_number_is_not_mistaken_for_the_shorter() {
        assert_eq!(first_free(Family::Ipv4, &[], "10.77.10.0/24 dev eth0"), Some(ipv4(0)));
        assert_eq!(first_free(Family::Ipv4, &[ipv4(0)], "10.77.10.0/24 dev eth0"), Some(ipv4(1)));
    }

    #[test]
    fn every_address_is_of_one_family() {
        let network = Network { number: 17, family: Family::Ipv6 };
        assert_eq!(network.node().to_string(), "fd4d:77:11::2");
        assert_eq!(
            (network.pods(), network.services()),
            ("fd4d:78:11::/64".into(), "fd4d:79:11::/112".into())
        );
        assert_eq!(network.kubernetes_service().to_string(), "fd4d:79:11::1");
        assert_eq!(ipv4(17).pods(), "10.78.17.0/24");
    }
}

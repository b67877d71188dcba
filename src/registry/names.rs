//! Host names that DNS does not know: the site's own name service, asked through `getent`.
//!
//! Names normally go through the HTTP client's own resolver (`/etc/hosts` and DNS), since the C library's in a static program may
//! load plugins of another C library and crash. Clusters with names in LDAP, NIS or mDNS need this second way.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

/// The addresses `getent` knows; none where it is missing or does not know either.
pub(super) fn ask_getent(host: &str) -> Vec<SocketAddr> {
    // A name from a redirect must not become an option.
    if host.starts_with('-') {
        return Vec::new();
    }
    let answer = Command::new("getent").args(["ahosts", host]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    answer.map_or_else(|_| Vec::new(), |output| addresses(&String::from_utf8_lossy(&output.stdout)))
}

/// `getent ahosts`: an address first on each line, repeated for each kind of socket. Port 0 means the URL's own.
fn addresses(output: &str) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for line in output.lines() {
        if let Some(ip) = line.split_whitespace().next().and_then(|word| word.parse::<IpAddr>().ok()) {
            let address = SocketAddr::new(ip, 0);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_getent() {
        let output = "10.1.2.3       STREAM head.cluster\n10.1.2.3       DGRAM\nfe80::1 STREAM\nnonsense\n";
        assert_eq!(addresses(output), ["10.1.2.3:0", "[fe80::1]:0"].map(|a| a.parse().unwrap()));
        assert_eq!(addresses(""), []);
    }
}

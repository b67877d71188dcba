//! `registries.conf` and proxies: names without a registry, registries that moved or are blocked, mirrors, and the ways out of a closed network.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

use crate::login::{Home, Server, answer_once};
use crate::rig::skip;

impl Home {
    fn conf(&self, text: &str) {
        let directory = self.home.join(".config/containers");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("registries.conf"), text).unwrap();
    }
}

#[test]
fn short_names_are_searched() {
    let (Some(first), Some(second)) = (Server::start(&["plain"], &[]), Server::start(&["plain"], &[])) else { return };
    let home = Home::new();
    assert_eq!(home.push(&second, "team/tool", &[]).code, Some(0));
    let full = format!("{}/team/tool", second.address);
    home.ok(&["rm", &full]);
    let search = format!("unqualified-search-registries = ['{}', '{}']\n", first.address, second.address);
    home.conf(&search);
    let ran = home.ok(&["pull", "team/tool"]);
    assert!(ran.stderr.contains(&full), "it says what was found: {ran}");
    // It has its full name, and is found by the short one, in FROM too.
    assert!(home.ok(&["images", "--format", "json"]).stdout.contains(&full));
    home.ok(&["inspect", "team/tool"]);
    let file = home.rig.write("Dockerfile", "FROM team/tool\nLABEL a=b\n");
    let build = |options: &[&str]| {
        let mut arguments = vec!["build", "-f", file.to_str().unwrap()];
        arguments.extend(options);
        let context = home.rig.path("layout");
        arguments.push(context.to_str().unwrap());
        home.rootling(&arguments, "", &[])
    };
    for options in [&["--pull=never"][..], &["--pull=always"]] {
        let ran = build(options);
        assert_eq!(ran.code, Some(0), "{ran}");
    }
    home.ok(&["rm", "team/tool"]);
    home.fails(&["pull", "team/other"], "", &["manifest unknown", "before that"]);
    // Where nothing may be guessed.
    home.conf(&format!("{search}short-name-mode = 'enforcing'\n"));
    home.fails(&["pull", "team/tool"], "", &["may mean several images", "full name"]);
    home.conf(&format!("{search}short-name-mode = 'enforcing'\n[aliases]\n'tool' = '{full}'\n"));
    home.ok(&["pull", "tool"]);
    // One that does not answer ends the search: the next one's image may be somebody else's.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    home.conf(&format!("unqualified-search-registries = ['{closed}', '{}']\n", second.address));
    home.fails(&["pull", "--retry", "0", "team/tool"], "", &["ECONNREFUSED"]);
}

#[test]
fn aliases_alone_change_nothing() {
    let home = Home::new();
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hub.local_addr().unwrap();
    let seen = answer_once(hub, |_| "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".into());
    home.conf(&format!("[[registry]]\nprefix = 'docker.io'\nlocation = '{address}'\n[aliases]\n'fedora' = 'elsewhere.invalid/fedora'\n"));
    home.fails(&["pull", "fedora"], "", &["404"]);
    assert!(seen.lock().unwrap()[0].starts_with("GET /v2/library/fedora/manifests/latest "), "{seen:?}");
}

#[test]
fn registries_that_moved_or_are_blocked() {
    let Some(server) = Server::start(&["htpasswd"], &[]) else { return };
    let (home, address) = (Home::new(), &*server.address);
    assert_eq!(home.push(&server, "archive/app", &["--creds", "user:pass"]).code, Some(0));
    home.conf(&format!(
        "[[registry]]\nprefix = 'old.example/team'\nlocation = '{address}/archive'\n[[registry]]\nprefix = '*.closed.example'\nblocked = true\n"
    ));
    // Credentials for this once are for the registry that the user names, wherever his own file says that it is.
    home.ok(&["pull", "--creds", "user:pass", "old.example/team/app"]);
    home.ok(&["rm", "old.example/team/app"]);
    home.fails(&["pull", "a.closed.example/x"], "", &["is blocked", "registries.conf"]);
    home.conf("[registries.block]\nregistries = ['closed.example']\n");
    home.fails(&["pull", "closed.example/x"], "", &["is blocked"]);
    home.fails(&["login", "-u", "u", "--password-stdin", "closed.example"], "p", &["is blocked"]);
}

#[test]
fn a_mirror_is_told_nothing_of_the_registry() {
    let Some(server) = Server::start(&["htpasswd"], &[]) else { return };
    let (home, address) = (Home::new(), &*server.address);
    assert_eq!(home.push(&server, "team/app", &["--creds", "user:pass"]).code, Some(0));
    home.ok(&["rm", &format!("{address}/team/app")]);
    home.ok(&["prune"]);
    let mirror = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = mirror.local_addr().unwrap();
    let ask = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let seen = answer_once(mirror, move |_| ask.into());
    home.conf(&format!("[[registry]]\nlocation = '{address}'\n[[registry.mirror]]\nlocation = '{at}'\n"));
    home.ok(&["pull", "--creds", "user:pass", &format!("{address}/team/app")]);
    home.log_in(address, "user", "pass");
    home.ok(&["pull", &format!("{address}/team/app")]);
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty() && !seen.iter().any(|head| head.to_lowercase().contains("authorization")), "{seen:?}");
}

/// A proxy of the two usual kinds in front of one server, whatever host is asked for; says what it was asked.
fn proxy(target: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut first = [0];
            if client.peek(&mut first).is_ok_and(|n| n == 1) && first[0] == 5 {
                log.lock().unwrap().push(socks(&mut client));
            } else {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut first).is_ok_and(|n| n == 1) {
                    head.push(first[0]);
                }
                log.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                let _ = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
            }
            let server = TcpStream::connect(&target).unwrap();
            join(client.try_clone().unwrap(), server.try_clone().unwrap());
            join(server, client);
        }
    });
    (address, seen)
}

/// The two messages of RFC 1928, without authentication; the host asked for.
fn socks(client: &mut TcpStream) -> String {
    let mut take = |length: usize| {
        let mut bytes = vec![0; length];
        client.read_exact(&mut bytes).unwrap();
        bytes
    };
    let methods = take(2)[1];
    take(methods.into());
    client.write_all(&[5, 0]).unwrap();
    let mut take = |length: usize| {
        let mut bytes = vec![0; length];
        client.read_exact(&mut bytes).unwrap();
        bytes
    };
    let host = match take(4)[3] {
        3 => {
            let length = take(1)[0];
            String::from_utf8(take(length.into())).unwrap()
        }
        _ => format!("{:?}", take(4)),
    };
    take(2);
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    format!("SOCKS {host}")
}

fn join(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

#[test]
fn proxies() {
    let Some(server) = Server::start(&["htpasswd", "tls"], &[]) else { return };
    let home = Home::new();
    let (address, seen) = proxy(server.address.clone());
    let login = |variables: &[(&str, &str)]| {
        let arguments = ["login", "-u", "user", "--password-stdin", "--tls-verify=false", "registry.invalid:5000"];
        home.rootling(&arguments, "pass", variables)
    };
    let with_secret = format!("http://me:proxy-hush@{address}");
    let ran = login(&[("HTTPS_PROXY", &with_secret)]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let head = seen.lock().unwrap().remove(0);
    // The proxy gets its own credentials, and the registry's pass by it encrypted.
    assert!(head.starts_with("CONNECT registry.invalid:5000 ") && head.contains("roxy-") && !head.contains("dXNlcjpwYXNz"), "{head}");
    seen.lock().unwrap().clear();
    let ran = login(&[("ALL_PROXY", &format!("socks5h://{address}"))]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(seen.lock().unwrap()[0], "SOCKS registry.invalid");
    let ran = login(&[("HTTPS_PROXY", &with_secret), ("NO_PROXY", "other.example,.invalid")]);
    assert!(ran.code != Some(0) && ran.stderr.contains("unknown host"), "{ran}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran =
        login(&[("HTTPS_PROXY", &format!("http://me:proxy-hush@{closed}")), ("HTTP_PROXY", &format!("http://me:proxy-hush@{closed}"))]);
    assert!(ran.code != Some(0) && !format!("{ran}").split("--- stdout").nth(1).unwrap().contains("proxy-hush"), "{ran}");
}

#[test]
fn networks_without_proxy() {
    // The address this machine would be reached by; nothing is sent.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr()).map(|address| address.ip());
    let Some(own) = own.ok().filter(|ip| !ip.is_loopback()) else { return skip("this machine has no address but loopback").unwrap_or(()) };
    let listener = TcpListener::bind((own, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let direct = answer_once(listener, |_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".into());
    let (proxy, proxied) = proxy(address.to_string());
    let home = Home::new();
    let login = |no_proxy: &str| {
        let arguments = ["login", "-u", "user", "--password-stdin", "--tls-verify=false", &address.to_string()];
        let url = format!("http://{proxy}");
        home.ok_with(&arguments, "pass", &[("HTTPS_PROXY", &url), ("http_proxy", &url), ("NO_PROXY", no_proxy)])
    };
    let network = match own {
        std::net::IpAddr::V4(v4) => format!("{}.0.0.0/8", v4.octets()[0]),
        std::net::IpAddr::V6(_) => "::/0".to_owned(),
    };
    login(&network);
    assert!(proxied.lock().unwrap().is_empty() && !direct.lock().unwrap().is_empty());
    // Reserved, so nobody has an address there.
    login("240.0.0.0/4");
    assert!(!proxied.lock().unwrap().is_empty());
}

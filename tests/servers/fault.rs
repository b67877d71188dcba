//! A server that misbehaves in every way a real one won't: a function from request to bytes.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rootling::oci::Reference;

/// What the server was asked.
pub struct Asked {
    pub line: String,
    pub headers: HashMap<String, String>,
    /// What was sent.
    pub body: Vec<u8>,
    /// Connections and requests so far, this one included.
    pub number: usize,
}

impl Asked {
    pub fn range(&self) -> usize {
        self.headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0)
    }
}

/// What it does then.
pub enum Reply {
    /// Sends these bytes and closes.
    Close(Vec<u8>),
    /// Sends these bytes and then nothing, for as long as the test runs.
    Hang(Vec<u8>),
    /// Sends these bytes, then this one again and again.
    Endless(Vec<u8>, u8),
    /// Sends these bytes, the last so many one by one, again and again so that it never ends.
    Drip(Vec<u8>, usize),
}

/// Status, headers, body.
pub fn http(status: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    if !headers.iter().any(|h| h.to_lowercase().starts_with("content-length") || h.to_lowercase().starts_with("transfer")) {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    for header in headers {
        text += &format!("{header}\r\n");
    }
    [format!("{text}\r\n").as_bytes(), body].concat()
}

pub struct Server {
    pub address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, record) = (Arc::new(answer), log.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (answer, record) = (answer.clone(), record.clone());
                std::thread::spawn(move || serve(connection, &*answer, &record));
            }
        });
        Self { address, log }
    }

    pub fn reference(&self) -> Reference {
        format!("{}/some/image:tag", self.address).parse().unwrap()
    }

    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(mut connection: TcpStream, answer: &dyn Fn(&Asked) -> Reply, log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    // A handshake has no lines to wait for.
    let handshake = reader.fill_buf().is_ok_and(|bytes| bytes.first() == Some(&0x16));
    let mut lines = reader.by_ref().lines().map_while(std::io::Result::ok);
    let Some(line) = (if handshake { Some("TLS handshake".to_owned()) } else { lines.next() }) else { return };
    let mut headers = HashMap::new();
    while let Some(header) = (if handshake { None } else { lines.next() }).filter(|line| !line.is_empty()) {
        if let Some((name, value)) = header.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }
    let mut body = vec![0; headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let number = {
        let mut log = log.lock().unwrap();
        log.push(format!("{line} {}", headers.get("authorization").map_or("-", String::as_str)));
        log.len()
    };
    match answer(&Asked { line, headers, body, number }) {
        Reply::Close(bytes) => {
            let _ = connection.write_all(&bytes);
            let _ = connection.shutdown(Shutdown::Write);
            // Closing with unread input would reset the connection and lose what was sent.
            let _ = connection.read(&mut [0; 1024]);
        }
        Reply::Hang(bytes) => {
            let _ = connection.write_all(&bytes);
            std::thread::sleep(Duration::from_secs(60));
        }
        Reply::Drip(bytes, last) => {
            let (first, last) = bytes.split_at(bytes.len() - last);
            let _ = connection.write_all(first);
            // No longer than a test, which does not wait for it.
            for byte in last.iter().cycle().take(2000) {
                if connection.write_all(&[*byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(30));
            }
        }
        Reply::Endless(bytes, again) => {
            let _ = connection.write_all(&bytes);
            while connection.write_all(&[again; 4096]).is_ok() {}
        }
    }
}

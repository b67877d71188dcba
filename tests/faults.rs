//! Registries that lie, break off, dawdle and forget: each case ends in a correct result or in one clear error, and leaves storage good.
//!
//! What each says, and how long it may take, is the table of `doc/registry-faults.md`, which this test compares with what happens.
//! Times there follow from what is counted here and the usual patience, since waiting for 45 seconds is no test.

#[path = "servers/fault.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod fault;
#[path = "servers/memory.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod memory;
#[path = "servers/faults_pull.rs"]
mod pulling;
#[path = "servers/faults_push.rs"]
mod pushing;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fault::{Asked, Reply, Server};
use memory::Memory;
use rootling::error::{Error, Place, Result};
use rootling::event::Silent;
use rootling::oci::{Platform, Reference};
use rootling::registry::Patience;
use rootling::store::{ImageRecord, Store};
use rootling::transfer::{Client, ClientSettings, Need, PullOptions, Shape, Subject, pull, push};

/// What a registry does instead of what it should; nothing where it behaves. `times` counts from 1 how often it was asked.
pub type Fault = fn(&Memory, &Asked, usize) -> Option<Reply>;

/// A row of the table.
#[derive(Clone)]
pub struct Case {
    name: &'static str,
    fault: Fault,
    /// Another image than the usual one.
    image: fn(&Memory),
    tls_verify: Option<bool>,
    pauses: Pauses,
}

/// How long it is waited after each fault.
#[derive(Clone, Copy)]
pub enum Pauses {
    /// Longer each time.
    Growing,
    /// As `Retry-After` asks, in seconds.
    Asked(u64),
    /// Short each time, since there is progress.
    Steady,
    /// Not at all.
    None,
}

pub fn case(name: &'static str, fault: Fault) -> Case {
    Case { name, fault, image: Memory::usual_image, tls_verify: None, pauses: Pauses::Growing }
}

impl Case {
    /// The registry has another image.
    pub fn of(mut self, image: fn(&Memory)) -> Self {
        self.image = image;
        self
    }

    pub fn pausing(mut self, pauses: Pauses) -> Self {
        self.pauses = pauses;
        self
    }
}

/// How often which fault was served.
#[derive(Default)]
struct Counted {
    all: AtomicUsize,
    silent: AtomicUsize,
}

fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        stall: Duration::from_secs(1),
        first_delay: Duration::from_millis(1),
        longest_delay: Duration::from_millis(20),
        ..Patience::default()
    }
}

fn client(case: &Case) -> Client {
    Client::new(ClientSettings { patience: Some(patience()), tls_verify: case.tls_verify, ..ClientSettings::default() })
}

fn serve(case: &Case, memory: &Arc<Memory>) -> (Server, Arc<Counted>, Arc<Mutex<bool>>) {
    let (memory, fault, counted, faulty) = (memory.clone(), case.fault, Arc::new(Counted::default()), Arc::new(Mutex::new(true)));
    let (count, on) = (counted.clone(), faulty.clone());
    let server = Server::start(move |asked| {
        if *on.lock().unwrap() {
            let times = memory.asked(asked);
            if let Some(reply) = fault(&memory, asked, times) {
                count.all.fetch_add(1, Ordering::Relaxed);
                if matches!(reply, Reply::Hang(_) | Reply::Drip(..)) {
                    count.silent.fetch_add(1, Ordering::Relaxed);
                }
                return reply;
            }
        }
        memory.answer(asked)
    });
    (server, counted, faulty)
}

fn storage() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("storage")).unwrap();
    (directory, store)
}

fn pull_from(store: &Store, case: &Case, server: &Server) -> Result<ImageRecord> {
    pull(store, &client(case), &server.reference(), &PullOptions { platform: Platform::host(), need: Need::Files }, &Silent)
}

/// Pulls with the fault, then without it.
fn try_pull(case: &Case) -> String {
    let memory = Arc::new(Memory::default());
    (case.image)(&memory);
    let (server, counted, faulty) = serve(case, &memory);
    let (_directory, store) = storage();
    let outcome = pull_from(&store, case, &server).map(drop);
    if outcome.is_err() {
        assert!(store.images().unwrap().is_empty(), "{}: there is an image", case.name);
    }
    *faulty.lock().unwrap() = false;
    // Some images can't be pulled from anybody.
    memory.usual_image();
    let honest = Case { tls_verify: None, ..case.clone() };
    let record = pull_from(&store, &honest, &server).unwrap_or_else(|e| panic!("{}: afterwards: {e}", case.name));
    assert!(store.load_image(&record).is_ok() && store.stack(&record.layers).is_ok(), "{}", case.name);
    row(case, &server, &counted, outcome)
}

/// Pushes with the fault, then without it, and pulls what was pushed.
fn try_push(case: &Case) -> String {
    let memory = Arc::new(Memory::default());
    memory.usual_image();
    let (directory, store) = storage();
    let source = serve(&self::case("source", |_, _, _| None), &memory);
    let record = pull_from(&store, &self::case("source", |_, _, _| None), &source.0).unwrap();
    // The config is there, so that what is counted is the layer's.
    let target = Arc::new(Memory::default());
    target.blob("", &store.read_blob(&record.config, 1 << 20).unwrap());
    let (server, counted, faulty) = serve(case, &target);
    let send = |name: &Reference| push(&store, &client(case), &Subject::image(&record), name, &Shape::default(), &Silent);
    let outcome = send(&server.reference()).map(drop);
    assert_eq!(outcome.is_ok(), target.has("manifests/tag"), "{}: the registry has it, or not", case.name);
    *faulty.lock().unwrap() = false;
    send(&server.reference()).unwrap_or_else(|e| panic!("{}: afterwards: {e}", case.name));
    assert_eq!(target.digest("manifests/tag"), Some(record.manifest.digest), "{}", case.name);
    for blob in record.blobs.iter().chain([&record.config]) {
        assert!(target.has(&format!("blobs/{blob}")), "{}: {blob}", case.name);
    }
    drop(directory);
    row(case, &server, &counted, outcome)
}

/// `| case | what is said | longest time |`
fn row(case: &Case, server: &Server, counted: &Counted, outcome: Result<()>) -> String {
    let said = outcome.as_ref().map_or_else(said, |()| "(succeeds)".to_owned());
    // Ports, digests and our own impatience differ from what a user sees.
    let said = said.replace(&server.address, "HOST").replace("for 1 s", "for 45 s").replace("after 1 s", "after 45 s");
    let text = ["sha256:", "uploads/u", "`HOST` sent "].iter().fold(said, |text, before| shortened(&text, before));
    let text = without_short_digests(&text);
    format!("| {} | {} | {} |", case.name, text.replace('|', "\\|"), longest(case, counted, &outcome))
}

/// Without the digits that stand behind a word.
fn shortened(text: &str, word: &str) -> String {
    let mut parts = text.split(word);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + word + "…" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
}

/// `layer 1/1 0123456789ab` and `blob 0123…` name a digest in short.
fn without_short_digests(text: &str) -> String {
    let short = |word: &str| word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
    text.split(' ').map(|word| if short(word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
}

fn said(error: &Error) -> String {
    let mut text = format!("error: {}", error.what());
    if let Some(Place::Name(place)) = error.place() {
        let _ = write!(text, "<br>--> {place}");
    }
    let causes = error.causes().iter().map(|cause| format!("<br>cause: {cause}"));
    let hints = error.hints().iter().map(|hint| format!("<br>hint: {hint}"));
    text + &causes.chain(hints).collect::<String>()
}

/// All waits for a silent server, and the longest pauses between as many attempts, with the usual patience.
fn longest(case: &Case, counted: &Counted, outcome: &Result<()>) -> String {
    let usual = Patience::default();
    let faults = counted.all.load(Ordering::Relaxed);
    let silent = u32::try_from(counted.silent.load(Ordering::Relaxed)).unwrap();
    // What is given up at once, and what is asked for anew at once, has no pauses.
    let pauses = match outcome {
        Ok(()) => faults,
        Err(error) if error.to_string().contains(" attempts") => usize::try_from(usual.attempts).unwrap() - 1,
        Err(_) => 0,
    };
    let pause = |n: usize| match case.pauses {
        Pauses::Growing => usual.first_delay.saturating_mul(1 << n.min(16)).min(usual.longest_delay),
        // And some jitter.
        Pauses::Asked(seconds) => Duration::from_secs(seconds).min(usual.longest_delay) + Duration::from_secs(1),
        Pauses::Steady => usual.first_delay,
        Pauses::None => Duration::ZERO,
    };
    let time = usual.stall * silent + (0..pauses).map(pause).sum::<Duration>();
    match time.as_secs_f32().ceil() as u64 {
        0..=2 => "at once".to_owned(),
        seconds @ ..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// The rows of a section of the document.
fn documented<'a>(text: &'a str, section: &str) -> Vec<&'a str> {
    let from = text.split_once(&format!("## {section}\n")).unwrap_or_else(|| panic!("there is no section {section}")).1;
    let section = from.split("\n## ").next().unwrap();
    section.lines().filter(|line| line.starts_with("| ")).skip(1).collect()
}

fn compare(section: &str, cases: Vec<Case>, attempt: fn(&Case) -> String) {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/registry-faults.md")).unwrap();
    // Some at a time: on a machine that has too much to do, everything is silent for a second.
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![String::new(); cases.len()]));
    let work = || {
        while let Some((at, case)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, cases.get(at)?))) {
            let row = attempt(case);
            done.lock().unwrap()[at] = row;
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
    let rows = done.into_inner().unwrap();
    let documented = documented(&text, section);
    let same = documented == rows.iter().map(String::as_str).collect::<Vec<_>>();
    if !same {
        let (there, here): (Vec<_>, Vec<_>) = (documented.to_vec(), rows.iter().map(String::as_str).collect());
        here.iter().filter(|row| !there.contains(row)).for_each(|row| println!("happens:    {row}"));
        there.iter().filter(|row| !here.contains(row)).for_each(|row| println!("documented: {row}"));
        println!("--- {section}\n{}\n---", rows.join("\n"));
    }
    assert!(same, "doc/registry-faults.md, {section}, does not say what happens; what does is above");
}

#[test]
fn pulls_end_as_documented() {
    compare("Pull", pulling::cases(), try_pull);
}

#[test]
fn pushes_end_as_documented() {
    compare("Push", pushing::cases(), try_push);
}

//! Many real processes in one storage directory, killed at random, and what they leave.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::testing::{image, layer, names};
use super::*;
use crate::oci::{DiffId, Digest};

const DIRECTORY: &str = "ROOTLING_STRESS_DIRECTORY";
const JOB: &str = "ROOTLING_STRESS_JOB";
/// Few, so that workers meet.
const TEXTS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];

const EVERYTHING: PruneOptions = PruneOptions { steps: Keep::Nothing, trees: Keep::Nothing, mounts: Keep::Nothing, action: Action::Remove };

/// A worker; killed when dropped.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this test binary again, as a worker.
fn spawn(store: &Path, job: &str) -> Worker {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::stress::worker", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, store)
        .env(JOB, job)
        .stdout(Stdio::null())
        .spawn();
    Worker(child.unwrap())
}

#[test]
#[ignore = "a worker of the tests below, started by them"]
fn worker() {
    let (Some(dir), Some(job)) = (std::env::var_os(DIRECTORY), std::env::var_os(JOB)) else { return };
    match job.to_str().unwrap() {
        "chaos" => chaos(Path::new(&dir)),
        "check" => check_after(Path::new(&dir)),
        name => once(Path::new(&dir), name),
    }
}

/// What a small build does, once.
fn once(dir: &Path, name: &str) {
    let store = Store::open(dir).unwrap();
    let layers: Vec<Layer> = TEXTS.iter().map(|text| layer(&store, text)).collect();
    let key = Digest::of(name);
    let step = StepRecord { layers: vec![layers[0].diff_id], blobs: Vec::new(), value: serde_json::json!(name) };
    store.step_put(&key, &step).unwrap();
    assert_eq!(store.step_get(&key).unwrap(), Some(step));
    image(&store, name, &layers.iter().collect::<Vec<_>>());
    assert_whole(&store);
}

/// Everything, in random order, until killed.
fn chaos(dir: &Path) {
    let mut seed = u64::from(std::process::id()) << 20 | u64::from(Instant::now().elapsed().subsec_nanos()) | 1;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    loop {
        let store = Store::open(dir).unwrap();
        for _ in 0..random(12) {
            let (text, name) = (TEXTS[random(TEXTS.len())], ["a", "b", "c"][random(3)]);
            match random(8) {
                0 => drop(layer(&store, text)),
                1 | 2 => {
                    let layers: Vec<Layer> = (0..=random(3)).map(|_| layer(&store, TEXTS[random(TEXTS.len())])).collect();
                    drop(image(&store, name, &layers.iter().collect::<Vec<_>>()));
                }
                3 => drop(store.remove_image(&name.parse().unwrap()).unwrap()),
                4 => {
                    let layer = layer(&store, text);
                    let step = StepRecord { layers: vec![layer.diff_id], blobs: Vec::new(), value: text.into() };
                    store.step_put(&Digest::of(text), &step).unwrap();
                    if let Some(step) = store.step_get(&Digest::of(name)).unwrap() {
                        assert_eq!(store.stack(&step.layers).unwrap().len(), 1);
                    }
                }
                5 => {
                    let options = if random(2) == 0 { EVERYTHING } else { PruneOptions { steps: Keep::All, ..EVERYTHING } };
                    store.prune(&options).unwrap();
                }
                6 => download(&store, text, random(400)),
                _ => assert_whole(&store),
            }
        }
    }
}

fn download(store: &Store, text: &str, bytes: usize) {
    let whole = text.repeat(100);
    let digest = Digest::of(&whole);
    let mut writer = store.partial(&digest).unwrap();
    let from = writer.written() as usize;
    assert!(from <= whole.len());
    let to = (from + bytes).min(whole.len());
    writer.write_all(&whole.as_bytes()[from..to]).unwrap();
    if to == whole.len() {
        writer.commit(&digest, Some(to as u64)).unwrap();
        assert_eq!(store.read_blob(&digest, 1000).unwrap(), whole.as_bytes());
    }
}

/// Every image that has a record has all it needs, although others remove images and prune all the time.
fn assert_whole(store: &Store) {
    for record in store.images().unwrap() {
        // A record seen may be taken away before we lease what it names; one that is there time and again may not lack anything.
        let whole = (0..10).any(|_| match store.image(&record.reference).unwrap() {
            None => true,
            Some(now) => is_whole(store, &now),
        });
        assert!(whole, "{record:?} lacks something");
    }
}

fn is_whole(store: &Store, record: &ImageRecord) -> bool {
    store.load_image(record).is_ok() && record.layers.iter().all(|diff_id| store.layer(diff_id).unwrap().is_some_and(|l| is_intact(&l)))
}

fn is_intact(layer: &Layer) -> bool {
    let files: Vec<_> = fs::read_dir(&layer.layer_dir.fs).unwrap().map(|e| e.unwrap().path()).collect();
    files.len() == 1 && fs::read(&files[0]).unwrap() == files[0].file_name().unwrap().as_encoded_bytes()
}

#[test]
fn a_hundred_processes_share_a_new_directory() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("storage");
    let workers: Vec<Worker> = (0..100).map(|n| spawn(&dir, &format!("image{n}"))).collect();
    for mut worker in workers {
        assert!(worker.0.wait().unwrap().success());
    }
    let store = Store::open(&dir).unwrap();
    assert_eq!(store.images().unwrap().len(), 100);
    assert_eq!(names(&store, "layers").len(), TEXTS.len());
    assert!(names(&store, "tmp").is_empty(), "{:?}", names(&store, "tmp"));
    assert_whole(&store);
}

#[test]
fn killed_writers_leave_a_good_store() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("storage");
    let seconds = std::env::var("ROOTLING_STRESS_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut workers: Vec<Worker> = (0..8).map(|_| spawn(&dir, "chaos")).collect();
    let mut turn = 0;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(7 + turn % 50));
        let at = turn as usize % workers.len();
        let died = workers[at].0.try_wait().unwrap();
        assert_eq!(died, None, "a worker gave up by itself; its output says why");
        workers[at] = spawn(&dir, "chaos");
        turn += 1;
    }
    for mut worker in workers {
        assert_eq!(worker.0.try_wait().unwrap(), None);
    }
    check_after(&dir);
}

fn check_after(dir: &Path) {
    let store = Store::open(dir).unwrap();
    let leftovers: Vec<String> = names(&store, "tmp").into_iter().filter(|name| !name.starts_with("partial-")).collect();
    assert_eq!(leftovers, [""; 0], "opening sweeps");
    assert_whole(&store);
    for hex in names(&store, "blobs/sha256") {
        store.read_blob(&Digest::from_hex(&hex).unwrap(), 1 << 20).unwrap();
    }
    for hex in names(&store, "layers") {
        let layer = store.layer(&DiffId(Digest::from_hex(&hex).unwrap())).unwrap().expect("whole");
        assert!(is_intact(&layer));
    }
    // With no lease held, exactly what images need stays.
    drop(store);
    let store = Store::open(dir).unwrap();
    store.prune(&EVERYTHING).unwrap();
    let needed: BTreeSet<String> = store.images().unwrap().iter().flat_map(|i| &i.layers).map(|l| l.0.hex()).collect();
    assert_eq!(names(&store, "layers"), needed.into_iter().collect::<Vec<_>>());
    assert_whole(&store);
    for record in store.images().unwrap() {
        assert!(store.remove_image(&record.reference).unwrap());
    }
    drop(store);
    let store = Store::open(dir).unwrap();
    store.prune(&EVERYTHING).unwrap();
    for (directory, expected) in
        [("layers", &[][..]), ("blobs/sha256", &[]), ("cache/steps", &[]), ("tmp", &[]), ("images", &[]), ("locks", &["live"])]
    {
        assert_eq!(names(&store, directory), expected, "{directory}");
    }
}

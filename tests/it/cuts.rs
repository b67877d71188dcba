//! A connection cut at any byte: pulls and pushes through a proxy that breaks it off, before a real registry.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::registry::Registry;
use crate::rig::{Rig, needs};
use crate::served::{Layer, Tar, digest};

/// Nothing is cut.
const NEVER: i64 = i64::MAX / 2;

/// A proxy that cuts once, after so many bytes of one direction.
struct Proxy {
    address: String,
    /// Bytes left until the cut: to the registry, and from it.
    left: [Arc<AtomicI64>; 2],
}

impl Proxy {
    fn before(registry: &Registry) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let left = [Arc::new(AtomicI64::new(NEVER)), Arc::new(AtomicI64::new(NEVER))];
        let (behind, counters) = (registry.address.clone(), left.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&behind) else { continue };
                let ways = [(&client, &server), (&server, &client)];
                for ((from, to), left) in ways.into_iter().zip(&counters) {
                    let (from, to, left) = (from.try_clone().unwrap(), to.try_clone().unwrap(), left.clone());
                    std::thread::spawn(move || carry(from, to, &left));
                }
            }
        });
        Proxy { address, left }
    }

    /// Cuts after so many bytes of a direction; returns how many there are left afterwards, which is below zero if it was cut.
    fn cut(&self, direction: usize, after: i64, work: impl FnOnce()) -> i64 {
        self.left[direction].store(after, Ordering::SeqCst);
        work();
        self.left[direction].swap(NEVER, Ordering::SeqCst)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, left: &AtomicI64) {
    let mut bytes = [0; 1 << 14];
    while let Ok(count) = from.read(&mut bytes) {
        if count == 0 {
            break;
        }
        let before = left.fetch_sub(count as i64, Ordering::SeqCst);
        // Only who crosses it cuts.
        let cut = before >= 0 && before < count as i64;
        if to.write_all(&bytes[..if cut { before as usize } else { count }]).is_err() || cut {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Two layers of some 30 kB that don't compress, and a small one.
fn layers() -> Vec<Layer> {
    let noise = |n: u32| -> String { (0..450).map(|i| digest(format!("{n} {i}").as_bytes())).collect() };
    let tar = |n: u32| Tar::default().file(&format!("file{n}"), &noise(n)).end();
    vec![Layer::gzipped(&tar(1)), Layer::plain(&tar(2)), Layer::gzipped(&Tar::default().file("small", "3").end())]
}

/// Bytes at which to cut: all kinds of places in the first headers, then coarsely to the end.
fn places(total: i64) -> Vec<i64> {
    let fine = (0..700).step_by(53);
    fine.chain((700..total).step_by(usize::try_from(total / 24).unwrap().max(1) | 1)).collect()
}

#[test]
fn pulls_survive_a_cut_anywhere() {
    let (Some(()), Some(())) = (needs("docker-registry"), needs("skopeo")) else { return };
    let (registry, rig) = (Registry::start(), Rig::new());
    let layout = rig.path("layout");
    crate::registry::write_layout(&layout, &layers());
    registry.push(&layout, "sample");
    let proxy = Proxy::before(&registry);
    let name = format!("{}/sample:latest", proxy.address);
    let pull = || {
        let rig = Rig::new();
        rig.ok(["pull", "--retry-delay", "1ms", &name]);
        rig.ok(["export", &name, "-o", "out.tar"]);
    };
    for direction in [0, 1] {
        let total = NEVER - proxy.cut(direction, NEVER, pull);
        for at in places(total) {
            let left = proxy.cut(direction, at, pull);
            assert!(left < 0 || at > total - 200, "nothing was cut at {at} of {total}");
        }
    }
}

#[test]
fn pushes_survive_a_cut_anywhere() {
    let (Some(()), Some(())) = (needs("docker-registry"), needs("skopeo")) else { return };
    let (registry, rig) = (Registry::start(), Rig::new());
    let layout = rig.path("layout");
    crate::registry::write_layout(&layout, &layers());
    let source = registry.push(&layout, "sample");
    rig.ok(["pull", &source]);
    rig.ok(["tag", &source, "sample"]);
    let expected = rig.ok(["push", "--quiet", "sample", &format!("{}/first:1", registry.address)]);
    // From there it could be mounted.
    rig.ok(["rm", &source]);
    let proxy = Proxy::before(&registry);
    for (direction, options) in [(0, &[][..]), (1, &[][..]), (0, &["--chunk-size=10k"][..])] {
        let number = AtomicI64::new(0);
        let push = || {
            let name = format!("{}/d{direction}-{}/n{}:1", proxy.address, options.len(), number.fetch_add(1, Ordering::SeqCst));
            let words = [&["push", "--quiet", "--retry-delay", "1ms"][..], options, &["sample", &name]].concat();
            assert_eq!(rig.ok(words), expected, "{name}");
        };
        let total = NEVER - proxy.cut(direction, NEVER, push);
        for at in places(total) {
            let left = proxy.cut(direction, at, push);
            assert!(left < 0 || at > total - 200, "nothing was cut at {at} of {total}");
        }
    }
    // What was pushed last is whole.
    let other = Rig::new();
    other.ok(["pull", &format!("{}/d0-1/n20:1", registry.address)]);
}

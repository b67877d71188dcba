//! Links the program at a fixed address, and puts the files of `fakeroot-configs` into it.
//!
//! A position-independent program relocates some 20,000 pointers each time it starts; `rootling run` starts it twice, and that alone
//! would be a fifth of its time (0.5 ms a start, measured). Static builds (`make dist`) say so by their relocation model.

use std::fmt::Write;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let has = |name: &str, value: &str| std::env::var(name).is_ok_and(|list| list.split(',').any(|v| v == value));
    if has("CARGO_CFG_TARGET_OS", "linux") && !has("CARGO_CFG_TARGET_FEATURE", "crt-static") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    list_fakeroot_configs();
}

/// Writes the table of names and texts that `rootemu::fakeroot` includes: a new distribution is a new file, and no code.
fn list_fakeroot_configs() {
    println!("cargo::rerun-if-changed=fakeroot-configs");
    let mut names: Vec<String> = std::fs::read_dir("fakeroot-configs")
        .expect("the directory fakeroot-configs")
        .filter_map(|entry| entry.expect("a readable directory").file_name().into_string().ok())
        .filter_map(|file| file.strip_suffix(".toml").map(str::to_owned))
        .collect();
    names.sort();
    let mut table = String::from("&[\n");
    for name in names {
        let path = format!("/fakeroot-configs/{name}.toml");
        let _ = writeln!(table, "    ({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))),");
    }
    table.push(']');
    let directory = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&directory).join("fakeroot_configs.rs"), table).expect("a writable OUT_DIR");
}

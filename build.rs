//! Links the program at a fixed address.
//!
//! A position-independent program relocates some 20,000 pointers each time it starts; `rootling run` starts it twice, and that alone
//! would be a fifth of its time (0.5 ms a start, measured). Static builds (`make dist`) say so by their relocation model.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let has = |name: &str, value: &str| std::env::var(name).is_ok_and(|list| list.split(',').any(|v| v == value));
    if has("CARGO_CFG_TARGET_OS", "linux") && !has("CARGO_CFG_TARGET_FEATURE", "crt-static") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}

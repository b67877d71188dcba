//! Any bytes are a Dockerfile or one error; what parses can be linted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootling::dockerfile::{lint, parse};

fuzz_target!(|data: &[u8]| {
    if let Ok(file) = parse("Dockerfile", data) {
        lint::lint(&file);
    }
});

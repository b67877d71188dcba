fn main() {
    if let Some(code) = rootling::sandbox::reenter(&()) {
        std::process::exit(code);
    }
}

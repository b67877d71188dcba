//! An image by a name that may mean several: the search for short names.

use super::client::Client;
use crate::error::{Error, Kind, Result, quote};
use crate::event::{Event, Sink};
use crate::oci::Reference;
use crate::registry::RegistriesConf;

impl Client {
    /// What a name may mean, in the order to try; nearly always one thing. Errors: no name, or one that `registries.conf` refuses.
    pub fn candidates(&self, name: &str) -> Result<Vec<Reference>> {
        RegistriesConf::load(&self.settings().registries_confs())?.short_names().candidates(name)
    }
}

/// Asks for a name's candidates in their order, as [`Client::candidates`] gives them. A registry that has no such image, or does not show it,
/// is passed over; one that does not answer ends the search, since the next one's image of that name may be somebody else's.
pub fn search<T>(name: &str, candidates: &[Reference], sink: &dyn Sink, ask: impl Fn(&Reference) -> Result<T>) -> Result<T> {
    let Some((last, before)) = candidates.split_last() else { return Err(Error::input(format!("{} means nothing", quote(name)))) };
    let mut passed = Vec::new();
    for candidate in before {
        match ask(candidate) {
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied) => passed.push(format!("{candidate}: {error}")),
            outcome => return outcome.inspect(|_| found(name, candidate, sink)),
        }
    }
    match ask(last) {
        Ok(answer) => {
            if !before.is_empty() {
                found(name, last, sink);
            }
            Ok(answer)
        }
        Err(error) => Err(passed.into_iter().fold(error, |error, before| error.cause(format!("before that, {before}")))),
    }
}

fn found(name: &str, reference: &Reference, sink: &dyn Sink) {
    sink.event(Event::Note(&format!("{} is {}", quote(name), quote(reference.to_string()))));
}

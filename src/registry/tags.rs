//! The tags of a repository (distribution-spec, "Listing Tags").

use reqwest::Method;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;

use super::client::Client;
use super::fault;
use super::payload::Payload;
use super::redirect::Integrity;
use super::registries_conf::Endpoint;
use super::transport::{Access, Call, Target, read_limited};
use crate::error::{Error, Kind, Result, quote};
use crate::oci::Reference;

/// Tags asked for at once; registries may give fewer.
const PAGE: usize = 1000;
/// Some ten thousand tags a page at most.
const LONGEST_PAGE: usize = 4 << 20;
/// A registry that always has a next page is broken; the largest repositories have some ten thousand tags.
const PAGES: usize = 1000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// All tags of the reference's repository, in the registry's order.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        let what = format!("can't list the tags of {}", quote(reference.familiar_repository()));
        self.each_endpoint(reference, |endpoint| {
            let mut tags: Vec<String> = Vec::new();
            for _ in 0..PAGES {
                let (page, more) = self.tags_page(&what, endpoint, tags.last().map(String::as_str))?;
                let last = tags.len();
                tags.extend(page);
                if !more || tags.len() == last {
                    return Ok(tags);
                }
            }
            Err(Error::with_kind(Kind::Corrupt, what.as_str()).cause(format!("{} never ends listing them", quote(&endpoint.host))))
        })
    }

    fn tags_page(&self, what: &str, endpoint: &Endpoint, last: Option<&str>) -> Result<(Vec<String>, bool)> {
        // A tag's characters need no escape.
        let last = last.map(|last| format!("&last={last}")).unwrap_or_default();
        let call = Call {
            what,
            endpoint,
            method: Method::GET,
            target: Target::Path(format!("tags/list?n={PAGE}{last}")),
            headers: HeaderMap::new(),
            integrity: Integrity::Connection,
            access: Access::Pull,
            payload: Payload::Empty,
        };
        self.block_on(async {
            let response = self.transport().exchange(&call).await?;
            let place = fault::place(response.url());
            let corrupt = |why: String| Error::with_kind(Kind::Corrupt, what).at(place.clone()).cause(why);
            let more = response.headers().get(LINK).and_then(|link| link.to_str().ok()).is_some_and(|link| link.contains("rel=\"next\""));
            let stall = self.transport().settings().patience.stall;
            let bytes = read_limited(response, LONGEST_PAGE, stall).await.map_err(corrupt)?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|e| corrupt(format!("invalid answer: {e}")))?;
            let tags = page.tags.unwrap_or_default();
            match tags.iter().find(|tag| !tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))) {
                Some(odd) => Err(corrupt(format!("{} is no tag", quote(odd)))),
                None => Ok((tags, more)),
            }
        })
    }
}

//! Pages of lists.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halo_core::{clock::Timestamp, resource::ExternalId};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{refusal::Refusal, store::Cursor};

/// Bytes of a token: hash of the arguments, time, id.
const TOKEN_BYTES: usize = 24;

/// One page of a list that is asked for: how many elements, and behind which.
#[derive(Debug)]
pub(crate) struct Page {
    arguments: [u8; 8],
    /// At most so many elements.
    pub(crate) size: u32,
    /// Behind this position.
    pub(crate) after: Option<Cursor>,
}

impl Page {
    /// Reads what the request says. `filter` is everything but size and token, which must be the same for each page.
    pub(crate) fn new(
        parent: &str,
        filter: Option<&impl Message>,
        (size, default, largest): (i32, u32, u32),
        token: &str,
    ) -> Result<Self, Refusal> {
        let size = match u32::try_from(size) {
            Ok(0) => default,
            Ok(size) => size.min(largest),
            Err(_) => return Err(Refusal::invalid("page_size", "it is negative")),
        };
        let mut hash = Sha256::new();
        hash.update((parent.len() as u64).to_be_bytes());
        hash.update(parent);
        hash.update(filter.map(Message::encode_to_vec).unwrap_or_default());
        let hash: [u8; 32] = hash.finalize().into();
        let mut page = Self { arguments: [0; 8], size, after: None };
        page.arguments.copy_from_slice(&hash[..8]);
        if !token.is_empty() {
            page.after = Some(page.read(token).ok_or_else(|| {
                Refusal::invalid("page_token", "it is not one that this list gave for these very arguments")
            })?);
        }
        Ok(page)
    }

    fn read(&self, token: &str) -> Option<Cursor> {
        let bytes: [u8; TOKEN_BYTES] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let number =
            |from: usize| -> Option<u64> { Some(u64::from_be_bytes(bytes.get(from..from + 8)?.try_into().ok()?)) };
        (bytes[..8] == self.arguments).then_some(())?;
        Some(Cursor {
            time: Timestamp::from_unix_nanos(number(8)?.cast_signed()),
            id: ExternalId::new(number(16)?).ok()?,
        })
    }

    /// The token of the next page, which begins behind `last`.
    fn token(&self, last: Cursor) -> String {
        let mut bytes = self.arguments.to_vec();
        bytes.extend(last.time.unix_nanos().to_be_bytes());
        bytes.extend(last.id.get().to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// How many elements to read: one more than are shown tells whether there is another page.
    pub(crate) const fn limit(&self) -> u32 {
        self.size + 1
    }

    /// Cuts what was read to the page, and gives the token of the next one, empty if there is none.
    pub(crate) fn cut<T>(&self, elements: &mut Vec<T>, cursor: impl Fn(&T) -> Cursor) -> String {
        let size = self.size as usize;
        if elements.len() <= size {
            return String::new();
        }
        elements.truncate(size);
        elements.last().map_or_else(String::new, |last| self.token(cursor(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halo_core::pb::api::list_measurements_request::Filter;

    fn page(parent: &str, filter: Option<&Filter>, size: i32, token: &str) -> Result<Page, Refusal> {
        Page::new(parent, filter, (size, 50, 1000), token)
    }

    #[test]
    fn sizes_are_brought_into_range() {
        for (asked, given) in [(0, 50), (7, 7), (5000, 1000)] {
            assert_eq!(page("p", None, asked, "").unwrap().size, given);
        }
        assert!(page("p", None, -1, "").is_err());
    }

    #[test]
    fn a_token_belongs_to_its_arguments() {
        let cursor = Cursor { time: Timestamp::from_unix_nanos(-5), id: ExternalId::new(9).unwrap() };
        let mut elements = vec![1, 2];
        let token = page("p", None, 1, "").unwrap().cut(&mut elements, |_| cursor);
        assert_eq!(elements, [1]);
        assert_eq!(page("p", None, 2, &token).unwrap().after, Some(cursor));
        assert!(page("q", None, 1, &token).is_err());
        assert!(page("p", Some(&Filter { states: vec![1], ..Filter::default() }), 1, &token).is_err());
        assert!(page("p", None, 1, "nonsense").is_err());
        assert!(page("p", None, 2, "").unwrap().cut(&mut vec![1, 2], |_| cursor).is_empty());
    }
}

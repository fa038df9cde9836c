//! Pages of lists.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halo_core::{clock::Timestamp, resource::ExternalId};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{refusal::Refusal, store::Cursor};

/// A page ends before the element that would bring its messages above this many bytes; it has one element at least.
const MAX_PAGE_BYTES: usize = 2 << 20;
/// How many elements are read from the store at a time, so that only a few records are in memory at once.
pub(crate) const CHUNK: u32 = 16;
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

    /// The page, with nothing on it yet.
    pub(crate) const fn empty<T: Message>(&self) -> Filling<'_, T> {
        Filling { page: self, elements: Vec::new(), bytes: 0, last: None, more: false }
    }
}

/// A page that is being filled, in the order of the list.
#[derive(Debug)]
pub(crate) struct Filling<'a, T> {
    page: &'a Page,
    elements: Vec<T>,
    bytes: usize,
    last: Option<Cursor>,
    more: bool,
}

impl<T: Message> Filling<'_, T> {
    /// Adds the element at `cursor` if there is room; whether there was. One that finds no room says that there is
    /// another page.
    pub(crate) fn add(&mut self, element: T, cursor: Cursor) -> bool {
        let bytes = self.bytes + element.encoded_len();
        self.more =
            self.elements.len() >= self.page.size as usize || (bytes > MAX_PAGE_BYTES && !self.elements.is_empty());
        if !self.more {
            self.elements.push(element);
            self.bytes = bytes;
            self.last = Some(cursor);
        }
        !self.more
    }

    /// The elements, and the token of the next page, empty if there is none.
    pub(crate) fn finish(self) -> (Vec<T>, String) {
        let last = self.last.filter(|_| self.more);
        (self.elements, last.map_or_else(String::new, |last| self.page.token(last)))
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
        let one = page("p", None, 1, "").unwrap();
        let mut filling = one.empty();
        assert!(filling.add(1_u32, cursor));
        assert!(!filling.add(2_u32, Cursor { id: ExternalId::new(10).unwrap(), ..cursor }));
        let (elements, token) = filling.finish();
        assert_eq!(elements, [1]);
        assert_eq!(page("p", None, 2, &token).unwrap().after, Some(cursor));
        assert!(page("q", None, 1, &token).is_err());
        assert!(page("p", Some(&Filter { states: vec![1], ..Filter::default() }), 1, &token).is_err());
        assert!(page("p", None, 1, "nonsense").is_err());
        let two = page("p", None, 2, "").unwrap();
        let mut filling = two.empty();
        assert!(filling.add(1_u32, cursor) && filling.add(2_u32, cursor));
        assert!(filling.finish().1.is_empty());
    }

    #[test]
    fn a_page_ends_by_bytes_and_has_one_element_at_least() {
        let cursor = |id: u64| Cursor { time: Timestamp::from_unix_nanos(0), id: ExternalId::new(id).unwrap() };
        let all = page("p", None, 100, "").unwrap();
        let mut filling = all.empty();
        let element = vec![0_u8; MAX_PAGE_BYTES / 3];
        let added = (1..10).take_while(|&id| filling.add(element.clone(), cursor(id))).count();
        assert_eq!(added, 2, "three and their frames are too much");
        let (elements, token) = filling.finish();
        assert_eq!((elements.len(), page("p", None, 100, &token).unwrap().after), (2, Some(cursor(2))));
        let mut filling = all.empty();
        assert!(filling.add(vec![0_u8; 2 * MAX_PAGE_BYTES], cursor(1)));
        assert!(!filling.add(vec![0_u8; 1], cursor(2)));
    }
}

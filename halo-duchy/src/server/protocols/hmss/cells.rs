//! Shares as publishers upload them, cell by cell: a byte each, or the reference's protobuf message with varints.

use std::io::Read;

use zeroize::Zeroizing;

use crate::protocol::{Body, ProtocolError};

/// Cells that are handed on at once, and bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// `data`, a packed list: field 1 with a length in front.
const PACKED: u64 = 1 << 3 | 2;
/// `data`, one element: field 1 with a varint.
const SINGLE: u64 = 1 << 3;

/// How cells are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// A byte a cell.
    Bytes,
    /// `FrequencyVector { repeated uint32 data = 1 [packed] }`.
    Varints,
}

/// Calls `each` for every chunk of the cells of a body; `refuse` makes an error of what is wrong with the encoding.
///
/// # Errors
/// If the body cannot be read or decoded, or those of `each`.
pub(super) fn for_each(
    body: &Body,
    encoding: Encoding,
    refuse: impl Fn(String) -> ProtocolError,
    mut each: impl FnMut(&[u8]) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let mut source = body.open()?;
    let mut block = Zeroizing::new(vec![0; CHUNK]);
    let mut varints = Varints::default();
    let mut cells = Zeroizing::new(Vec::with_capacity(CHUNK));
    loop {
        let read = match source.read(&mut block) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if read == 0 {
            break;
        }
        match encoding {
            Encoding::Bytes => each(&block[..read])?,
            Encoding::Varints => {
                cells.clear();
                varints.read(&block[..read], &mut cells).map_err(&refuse)?;
                each(&cells)?;
            }
        }
    }
    if varints.is_at_end() { Ok(()) } else { Err(refuse("it ends in the middle of a cell".to_owned())) }
}

/// Where in the message the reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Tag,
    Length,
    /// In a packed list, of which so many bytes are left.
    Packed(u64),
    Single,
}

/// Reads the message in pieces of any length.
#[derive(Debug, Default)]
struct Varints {
    place: Place,
    /// The varint that is being read, and how many bits of it are there.
    value: u64,
    bits: u32,
}

impl Varints {
    fn is_at_end(&self) -> bool {
        self.place == Place::Tag && self.bits == 0
    }

    fn read(&mut self, bytes: &[u8], cells: &mut Vec<u8>) -> Result<(), String> {
        bytes.iter().try_for_each(|byte| self.take(*byte, cells))
    }

    fn take(&mut self, byte: u8, cells: &mut Vec<u8>) -> Result<(), String> {
        if let Place::Packed(left) = &mut self.place {
            *left -= 1;
        }
        // Cells, tags and lengths of bodies that are accepted are far shorter.
        if self.bits > 49 {
            return Err("a number in it is too long".to_owned());
        }
        self.value |= u64::from(byte & 0x7f) << self.bits;
        self.bits += 7;
        if byte & 0x80 != 0 {
            return match self.place {
                Place::Packed(0) => Err("a cell goes on beyond the end of its list".to_owned()),
                _ => Ok(()),
            };
        }
        let value = std::mem::take(&mut self.value);
        self.bits = 0;
        self.place = match self.place {
            Place::Tag if value == PACKED => Place::Length,
            Place::Tag if value == SINGLE => Place::Single,
            Place::Tag => return Err(format!("field {} is none of a frequency vector", value >> 3)),
            Place::Length if value == 0 => Place::Tag,
            Place::Length => Place::Packed(value),
            Place::Packed(left) => {
                cells.push(cell(value)?);
                if left == 0 { Place::Tag } else { Place::Packed(left) }
            }
            Place::Single => {
                cells.push(cell(value)?);
                Place::Tag
            }
        };
        Ok(())
    }
}

fn cell(value: u64) -> Result<u8, String> {
    u8::try_from(value).map_err(|_| format!("a cell of {value} is above every modulus"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::protocol::MemoryBody;

    #[derive(Clone, PartialEq, Message)]
    struct FrequencyVector {
        #[prost(uint32, repeated, tag = "1")]
        data: Vec<u32>,
    }

    fn decode(bytes: &[u8], encoding: Encoding) -> Result<Vec<u8>, String> {
        let body: Body = Arc::new(MemoryBody::new(bytes.to_vec(), 1).unwrap());
        let refuse = |reason| ProtocolError::BadShare { requisition: "r".to_owned(), reason };
        let mut cells = Vec::new();
        let read = for_each(&body, encoding, refuse, |chunk| {
            cells.extend_from_slice(chunk);
            Ok(())
        });
        read.map(|()| cells).map_err(|error| error.to_string())
    }

    proptest! {
        #[test]
        fn cells_are_those_of_the_message(cells in prop::collection::vec(any::<u8>(), 0..200_000)) {
            let message = FrequencyVector { data: cells.iter().map(|cell| u32::from(*cell)).collect() };
            prop_assert_eq!(&decode(&message.encode_to_vec(), Encoding::Varints).unwrap(), &cells);
            prop_assert_eq!(&decode(&cells, Encoding::Bytes).unwrap(), &cells);
        }

        #[test]
        fn any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let ours = decode(&bytes, Encoding::Varints);
            let message = FrequencyVector::decode(bytes.as_slice());
            if let (Ok(cells), Ok(message)) = (ours, message) {
                prop_assert!(cells.iter().map(|cell| u32::from(*cell)).eq(message.data));
            }
        }
    }

    #[test]
    fn lists_in_parts_and_single_elements_are_read_and_everything_else_is_refused() {
        assert_eq!(
            decode(&[0x0a, 2, 1, 2, 0x08, 3, 0x0a, 0, 0x0a, 2, 0xff, 1], Encoding::Varints).unwrap(),
            [1, 2, 3, 255]
        );
        for (bytes, words) in [
            (&[0x0a, 2, 1][..], "ends in the middle"),
            (&[0x0a], "ends in the middle"),
            (&[0x0a, 1, 0x80, 1], "beyond the end of its list"),
            (&[0x12, 1, 1], "field 2"),
            (&[0x0a, 2, 0x80, 2], "a cell of 256"),
            (&[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], "too long"),
        ] {
            let error = decode(bytes, Encoding::Varints).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}

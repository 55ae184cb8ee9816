//! The frames of an HTTP/2 client, as far as bounds of time need to know them: whether one is unfinished, and how many
//! there are that ask for work without bringing any. h2 itself bounds their sizes and kinds.

use crate::server::connection::PREFACE;

/// Before a frame's payload: length, type, flags, stream.
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_HEADERS: u8 = 4;

/// What a frame that only asks for work counts, and what one counts of which a fast download needs many.
pub const ASKING: u32 = 16;
const WIDENING: u32 = 1;

/// Where in the stream of frames a connection is.
#[derive(Debug)]
pub struct Frames {
    /// What is left of the present payload, or of the preface.
    left: usize,
    head: [u8; HEAD],
    filled: usize,
    /// Of the present frame.
    kind: u8,
    /// A header block has begun and not ended.
    in_block: bool,
    /// A frame began that continues nothing, since this was last asked.
    moved_on: bool,
    /// Frames since the last [`take_chatter`](Self::take_chatter) that bring nothing, by weight.
    chatter: u32,
}

impl Frames {
    /// At the beginning of a connection.
    pub fn new() -> Self {
        Self {
            left: PREFACE.len(),
            head: [0; HEAD],
            filled: 0,
            kind: SETTINGS,
            in_block: false,
            moved_on: false,
            chatter: 0,
        }
    }

    /// Follows what was read.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let count = self.left.min(bytes.len());
                self.left -= count;
                bytes = bytes.get(count..).unwrap_or_default();
                continue;
            }
            if let Some(slot) = self.head.get_mut(self.filled) {
                *slot = *byte;
            }
            self.filled += 1;
            bytes = rest;
            if self.filled == HEAD {
                self.filled = 0;
                self.begin();
            }
        }
    }

    /// The head of a frame is whole.
    fn begin(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.kind = kind;
        self.moved_on |= kind != CONTINUATION;
        match kind {
            HEADERS | CONTINUATION => self.in_block = flags & END_HEADERS == 0,
            DATA => {}
            WINDOW_UPDATE => self.chatter += WIDENING,
            _ => self.chatter += ASKING,
        }
    }

    /// Whether a frame or a header block is unfinished. What a body brings has bounds of its own.
    pub fn is_partial(&self) -> bool {
        (self.left > 0 && self.kind != DATA) || self.filled > 0 || self.in_block
    }

    /// Whether, since this was last asked, a frame began that is not part of what was unfinished then.
    pub fn has_moved_on(&mut self) -> bool {
        std::mem::take(&mut self.moved_on)
    }

    /// How many frames there were since this was last asked that only ask for work, by weight.
    pub fn take_chatter(&mut self) -> u32 {
        std::mem::take(&mut self.chatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD + payload, 7);
        bytes
    }

    #[test]
    fn every_cut_of_a_frame_is_seen() {
        let mut whole = PREFACE.to_vec();
        whole.extend(frame(SETTINGS, 0, 0));
        whole.extend(frame(HEADERS, END_HEADERS, 5));
        whole.extend(frame(0, 1, 300));
        let ends = [PREFACE.len(), PREFACE.len() + 9, PREFACE.len() + 23, whole.len()];
        let mut frames = Frames::new();
        for (index, byte) in whole.iter().enumerate() {
            frames.read(&[*byte]);
            let in_body = index >= ends[2] + HEAD - 1;
            assert_eq!(frames.is_partial(), !in_body && !ends.contains(&(index + 1)), "after byte {index}");
        }
        let mut at_once = Frames::new();
        at_once.read(&whole);
        assert!(!at_once.is_partial());
        assert_eq!((at_once.take_chatter(), at_once.take_chatter()), (ASKING, 0));
        assert!(at_once.has_moved_on() && !at_once.has_moved_on());
    }

    #[test]
    fn a_header_block_lasts_until_its_last_continuation() {
        let mut frames = Frames::new();
        frames.read(PREFACE);
        for (kind, flags, partial) in [(HEADERS, 0, true), (CONTINUATION, 0, true), (CONTINUATION, END_HEADERS, false)]
        {
            frames.read(&frame(kind, flags, 4));
            assert_eq!((frames.is_partial(), frames.has_moved_on()), (partial, kind == HEADERS));
        }
    }
}

//! Copies of request bodies, so that a request which a server did not process can be sent again. Bounded for each request
//! and for all of a worker.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

/// The longest body that is copied, and all copies of a worker together, in bytes.
pub const LARGEST: usize = 64 * 1024;
const ALL: usize = 16 * 1024 * 1024;

/// What the copies of one worker hold, in bytes.
#[derive(Default)]
pub struct Copies(Cell<usize>);

/// The copy of one body, as far as it was sent.
pub struct Copy {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Bytes of `trailers`.
    extra: usize,
    /// What is counted in `all`.
    held: usize,
    all: Rc<Copies>,
}

impl Copy {
    /// An empty one.
    pub fn new(all: &Rc<Copies>) -> Self {
        Self { data: Vec::new(), trailers: None, extra: 0, held: 0, all: Rc::clone(all) }
    }

    /// Adds a part; `false` when there is no room for it. The copy is of no use then.
    pub fn add(&mut self, frame: &Frame<Bytes>) -> bool {
        if let Some(data) = frame.data_ref() {
            if self.data.len() + self.extra + data.len() > LARGEST {
                return false;
            }
            self.data.extend_from_slice(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.extra = trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
            if self.data.len() + self.extra > LARGEST {
                return false;
            }
            self.trailers = Some(trailers.clone());
        }
        let held = self.data.capacity() + self.extra;
        let all = self.all.0.get() - self.held + held;
        self.all.0.set(all);
        self.held = held;
        all <= ALL
    }

    /// Takes the next part of the copy out; `None` at its end.
    pub fn next(&mut self) -> Option<Frame<Bytes>> {
        if !self.data.is_empty() {
            return Some(Frame::data(Bytes::from(std::mem::take(&mut self.data))));
        }
        self.trailers.take().map(Frame::trailers)
    }

    /// Whether there is no further part.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.all.0.set(self.all.0.get() - self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(length: usize) -> Frame<Bytes> {
        Frame::data(Bytes::from(vec![b'x'; length]))
    }

    #[test]
    fn copy_gives_back_what_was_added() {
        let all = Rc::default();
        let mut copy = Copy::new(&all);
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
        assert!(copy.add(&Frame::data("ab".into())) && copy.add(&Frame::data("c".into())));
        assert!(copy.add(&Frame::trailers(trailers.clone())));
        assert_eq!(copy.next().unwrap().into_data().unwrap(), "abc");
        assert!(!copy.is_empty());
        assert_eq!(copy.next().unwrap().into_trailers().unwrap(), trailers);
        assert!(copy.is_empty() && copy.next().is_none());
    }

    #[test]
    fn copies_are_bounded_each_and_together() {
        let all: Rc<Copies> = Rc::default();
        let mut copy = Copy::new(&all);
        assert!(copy.add(&data(LARGEST)) && !copy.add(&data(1)));
        drop(copy);
        let full = |_| {
            let mut copy = Copy::new(&all);
            copy.add(&data(LARGEST)).then_some(copy)
        };
        let copies: Vec<_> = (0..1000).map_while(full).collect();
        assert_eq!(copies.len(), ALL / LARGEST);
        drop(copies);
        assert_eq!(all.0.get(), 0);
    }
}

//! Websocket frames as a server reads and writes them (RFC 6455), without a socket.
//!
//! A server's frames are not masked, so the bytes of one are the same for every connection: they are encoded once, header
//! included, and shared. What a client sends is small; the decoder holds memory only while a frame is incomplete. General
//! websocket libraries copy every message into a buffer per connection, which for a snapshot of a megabyte and 10,000
//! connections is the difference between one megabyte and ten thousand.

use std::io::Cursor;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Longest payload of a control frame, in bytes (RFC 6455, 5.5).
const MAX_CONTROL_BYTES: usize = 125;

/// Bytes of an unmasked header whose length field has eight bytes: the longest.
const MAX_HEADER_BYTES: usize = 10;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A whole text message.
    Text(String),
    /// A ping, to be answered with the same payload.
    Ping(Vec<u8>),
    /// Something that proves life and asks for nothing.
    Pong,
    /// The client closes.
    Close,
}

/// Why a client's bytes are no websocket messages of the push protocol. The connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame is malformed: {0}")]
    Malformed(&'static str),
    #[error("a message is larger than {limit_bytes} bytes (max_message_bytes)")]
    TooLarge { limit_bytes: usize },
    #[error("a message is not text")]
    NotText,
}

/// Reassembles a client's messages from bytes as they arrive.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Bytes of frames that are not complete; no allocation while there are none.
    input: Vec<u8>,
    /// The message whose last fragment has not come.
    fragments: Option<Vec<u8>>,
    max_message_bytes: usize,
}

impl Decoder {
    pub(crate) fn new(max_message_bytes: usize) -> Self {
        Self { input: Vec::new(), fragments: None, max_message_bytes }
    }

    /// Takes bytes from the socket. Call [`Decoder::next`] until it has no more before feeding again, so that what is held
    /// stays below one message and one read.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next message that is complete.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, FrameError> {
        while let Some((header, payload)) = self.next_frame()? {
            if let Some(incoming) = self.take(&header, payload)? {
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self) -> Result<Option<(FrameHeader, Vec<u8>)>, FrameError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let mut cursor = Cursor::new(self.input.as_slice());
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| FrameError::Malformed("unknown opcode"))?;
        let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let Some((header, length)) = parsed else { return Ok(None) };
        let Some(mask) = header.mask else { return Err(FrameError::Malformed("a client's frame is not masked")) };
        let held = self.fragments.as_ref().map_or(0, Vec::len);
        let length = usize::try_from(length)
            .ok()
            .filter(|length| held.saturating_add(*length) <= self.max_message_bytes)
            .ok_or(FrameError::TooLarge { limit_bytes: self.max_message_bytes })?;
        let Some(masked) = self.input.get(start..start + length) else { return Ok(None) };
        let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        self.input.drain(..start + length);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Ok(Some((header, payload)))
    }

    fn take(&mut self, header: &FrameHeader, payload: Vec<u8>) -> Result<Option<Incoming>, FrameError> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(FrameError::Malformed("a reserved bit is set"));
        }
        match header.opcode {
            OpCode::Control(control) => {
                if !header.is_final || payload.len() > MAX_CONTROL_BYTES {
                    return Err(FrameError::Malformed("a control frame is fragmented or too long"));
                }
                Ok(Some(match control {
                    Control::Ping => Incoming::Ping(payload),
                    Control::Close => Incoming::Close,
                    _ => Incoming::Pong,
                }))
            }
            OpCode::Data(Data::Text) if self.fragments.is_some() => {
                Err(FrameError::Malformed("a message starts within another"))
            }
            OpCode::Data(Data::Text) if header.is_final => text(payload).map(Some),
            OpCode::Data(Data::Text) => {
                self.fragments = Some(payload);
                Ok(None)
            }
            OpCode::Data(Data::Continue) => {
                let mut message =
                    self.fragments.take().ok_or(FrameError::Malformed("a continuation continues nothing"))?;
                message.extend_from_slice(&payload);
                if header.is_final {
                    return text(message).map(Some);
                }
                self.fragments = Some(message);
                Ok(None)
            }
            OpCode::Data(_) => Err(FrameError::NotText),
        }
    }
}

fn text(payload: Vec<u8>) -> Result<Incoming, FrameError> {
    String::from_utf8(payload).map(Incoming::Text).map_err(|_| FrameError::Malformed("text is not UTF-8"))
}

/// A frame ready for any socket, and where its payload begins.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    bytes: Bytes,
    payload_at: usize,
}

impl Frame {
    /// A text frame that holds `message` as JSON.
    ///
    /// # Errors
    ///
    /// The message does not serialise.
    pub(crate) fn json(message: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::to_vec(message).map(|payload| Self::encode(OpCode::Data(Data::Text), &payload))
    }

    /// The answer to a ping.
    pub(crate) fn pong(payload: &[u8]) -> Self {
        Self::encode(OpCode::Control(Control::Pong), payload)
    }

    /// The last frame of a connection. A reason that does not fit is cut.
    pub(crate) fn close(code: u16, reason: &str) -> Self {
        let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL_BYTES - 2)];
        let mut payload = Vec::with_capacity(2 + reason.len());
        payload.put_u16(code);
        payload.extend_from_slice(reason.as_bytes());
        Self::encode(OpCode::Control(Control::Close), &payload)
    }

    fn encode(opcode: OpCode, payload: &[u8]) -> Self {
        let header = FrameHeader { is_final: true, opcode, ..FrameHeader::default() };
        let mut bytes = BytesMut::with_capacity(MAX_HEADER_BYTES + payload.len()).writer();
        // Writing to memory does not fail.
        let _ = header.format(payload.len() as u64, &mut bytes);
        let mut bytes = bytes.into_inner();
        let payload_at = bytes.len();
        bytes.extend_from_slice(payload);
        Self { bytes: bytes.freeze(), payload_at }
    }

    /// The whole frame.
    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// The payload alone, sharing the frame's memory.
    pub(crate) fn payload(&self) -> Bytes {
        self.bytes.slice(self.payload_at..)
    }

    /// Size in bytes, header included.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client's frame: masked.
    pub(crate) fn client_frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let mask = [0x1f, 0x2e, 0x3d, 0x4c];
        let header = FrameHeader { is_final, opcode, mask: Some(mask), ..FrameHeader::default() };
        let mut bytes = Vec::new();
        header.format(payload.len() as u64, &mut bytes).unwrap();
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn decode_in_chunks(bytes: &[u8], chunk: usize, limit: usize) -> Result<Vec<Incoming>, FrameError> {
        let mut decoder = Decoder::new(limit);
        let mut all = Vec::new();
        for piece in bytes.chunks(chunk) {
            decoder.feed(piece);
            while let Some(incoming) = decoder.next()? {
                all.push(incoming);
            }
            assert!(decoder.input.len() <= limit + 14 + chunk);
        }
        Ok(all)
    }

    const TEXT: OpCode = OpCode::Data(Data::Text);
    const CONTINUE: OpCode = OpCode::Data(Data::Continue);

    proptest! {
        #[test]
        fn messages_survive_any_cut_of_the_stream(
            texts in prop::collection::vec(".{0,300}", 1..8), chunk in 1_usize..900, fragments in 1_usize..4
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for text in &texts {
                let bytes = text.as_bytes();
                let size = bytes.len().div_ceil(fragments).max(1);
                let pieces: Vec<&[u8]> = if bytes.is_empty() { vec![bytes] } else { bytes.chunks(size).collect() };
                for (index, piece) in pieces.iter().enumerate() {
                    let opcode = if index == 0 { TEXT } else { CONTINUE };
                    stream.extend(client_frame(opcode, index + 1 == pieces.len(), piece));
                    // A control frame may come between fragments.
                    stream.extend(client_frame(OpCode::Control(Control::Ping), true, b"p"));
                    if index + 1 == pieces.len() {
                        expected.push(Incoming::Text(text.clone()));
                    }
                    expected.push(Incoming::Ping(b"p".to_vec()));
                }
            }
            // A ping is seen when it comes: ahead of the text that its message completes only if sent ahead of the end.
            prop_assert_eq!(decode_in_chunks(&stream, chunk, 4096).unwrap(), expected);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_hold_more_than_the_limit(
            bytes in prop::collection::vec(any::<u8>(), 0..2000), chunk in 1_usize..200
        ) {
            let _ = decode_in_chunks(&bytes, chunk, 512);
        }
    }

    #[test]
    fn what_is_no_client_frame_is_refused() {
        let mut unmasked = Vec::new();
        FrameHeader { is_final: true, opcode: TEXT, ..FrameHeader::default() }.format(1, &mut unmasked).unwrap();
        unmasked.push(b'x');
        let cases: [(Vec<u8>, FrameError); 8] = [
            (unmasked, FrameError::Malformed("a client's frame is not masked")),
            (client_frame(CONTINUE, true, b"x"), FrameError::Malformed("a continuation continues nothing")),
            (
                [client_frame(TEXT, false, b"x"), client_frame(TEXT, true, b"y")].concat(),
                FrameError::Malformed("a message starts within another"),
            ),
            (client_frame(TEXT, true, &[0xff]), FrameError::Malformed("text is not UTF-8")),
            (client_frame(OpCode::Data(Data::Binary), true, b"x"), FrameError::NotText),
            (client_frame(TEXT, true, &[b'x'; 65]), FrameError::TooLarge { limit_bytes: 64 }),
            (
                [client_frame(TEXT, false, &[b'x'; 40]), client_frame(CONTINUE, true, &[b'x'; 40])].concat(),
                FrameError::TooLarge { limit_bytes: 64 },
            ),
            (
                client_frame(OpCode::Control(Control::Ping), false, b"x"),
                FrameError::Malformed("a control frame is fragmented or too long"),
            ),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode_in_chunks(&bytes, 7, 64), Err(error));
        }
    }

    #[test]
    fn a_frame_is_announced_too_large_before_its_payload_comes() {
        let mut decoder = Decoder::new(1000);
        decoder.feed(&client_frame(TEXT, true, &[b'x'; 70_000])[..14]);
        assert_eq!(decoder.next(), Err(FrameError::TooLarge { limit_bytes: 1000 }));
    }

    #[test]
    fn payloads_and_frames_share_their_bytes() {
        for size in [0, 125, 126, 65_535, 65_536] {
            let frame = Frame::json(&"x".repeat(size)).unwrap();
            assert_eq!(frame.payload().len(), size + 2);
            assert!(frame.len() - frame.payload().len() <= MAX_HEADER_BYTES);
        }
        let close = Frame::close(4001, &"ä".repeat(100));
        assert_eq!(close.payload().len(), 124);
    }
}

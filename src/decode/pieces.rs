//! The JSON values of a message: its lines, the items of its array, or all of it.

use crate::decode::Limits;
use crate::decode::budget::too_many_events;
use crate::decode::form::Form;
use crate::decode::json::{self, Broken, Place};
use crate::decode::problem::Problem;
use crate::model::RefusedReason;
use crate::source::Message;

/// One JSON value of a message.
pub(super) struct Piece<'m> {
    pub bytes: &'m [u8],
    pub place: Place,
    /// Its number from 1, if the message has several: part of the id of dialects that have none.
    pub number: Option<usize>,
    pub form: Form,
    /// What its sender counts: the line that is not blank, else the item of the array, from 0.
    pub index: usize,
}

/// An error concerns all of the message: where an item ends can't be told any more, or there are too many.
pub(super) fn pieces<'m>(limits: &Limits, message: &'m Message, form: Form) -> Result<Vec<Piece<'m>>, Problem> {
    let (mark, body) = match message.body.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => (3, rest),
        None => (0, message.body.as_slice()),
    };
    let mut pieces = Vec::with_capacity(1);
    if form == Form::Lines {
        let lines = body.split(|b| *b == b'\n').enumerate().map(|(n, line)| (n + 1, line.trim_ascii()));
        for (index, (number, line)) in lines.filter(|(_, line)| !line.is_empty()).enumerate() {
            let from = pieces.len();
            add(limits, &mut pieces, line, Place::Line { number }, Form::Any)?;
            pieces.iter_mut().skip(from).for_each(|piece| piece.index = index);
        }
    } else {
        add(limits, &mut pieces, body, Place::Body { offset: mark }, form)?;
    }
    // Alone, it needs no number; an item of an array of one is still an item.
    if let [piece] = pieces.as_mut_slice()
        && !matches!(piece.place, Place::Item { .. })
    {
        piece.number = None;
    }
    Ok(pieces)
}

/// Adds a value, or the items of an array if a batch may stand there.
fn add<'m>(limits: &Limits, to: &mut Vec<Piece<'m>>, bytes: &'m [u8], place: Place, form: Form) -> Result<(), Problem> {
    let room = limits.batch_events.saturating_sub(to.len());
    let whole = |to: &mut Vec<Piece<'m>>, form| {
        if room == 0 {
            return Err(too_many_events(limits.batch_events));
        }
        to.push(Piece { bytes, place, number: Some(to.len() + 1), form, index: to.len() });
        Ok(())
    };
    let is_array = bytes.trim_ascii_start().first() == Some(&b'[');
    if form == Form::Structured || !is_array {
        if form == Form::Batch {
            let what = "a batch must be a JSON array of CloudEvents";
            return Err(Problem::new(RefusedReason::WrongType, what));
        }
        return whole(to, form);
    }
    let items = match json::items(bytes, room) {
        Ok(items) => items,
        Err(Broken::TooMany) => return Err(too_many_events(limits.batch_events)),
        // A line of its own ends where it ends, so its neighbours need not suffer: it is refused as one value.
        Err(_) if matches!(place, Place::Line { .. }) => return whole(to, Form::Structured),
        Err(Broken::Syntax { offset, depth }) => {
            let reason = match depth {
                d if d > limits.depth => RefusedReason::TooDeep,
                _ => RefusedReason::NotJson,
            };
            let what = "the array is broken here, so where its items end can't be told";
            return Err(Problem::new(reason, what).at(offset));
        }
    };
    let inner = if form == Form::Batch { Form::Structured } else { Form::Any };
    for item in items {
        let number = to.len() + 1;
        let place = match place {
            Place::Body { offset } => Place::Item { number, offset: offset + item.start },
            line => line,
        };
        // `items` gives ranges inside of `bytes`.
        to.push(Piece { bytes: &bytes[item], place, number: Some(number), form: inner, index: number - 1 });
    }
    Ok(())
}

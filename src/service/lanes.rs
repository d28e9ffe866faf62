//! The lanes of a pipeline: tables that take the same rows, with the decoder that makes them.
//!
//! Every lane hears of every position, so that V of each table passes the events that are not its own.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::Result;
use crate::avro::{BadRecord, Decoder, Event, Form, Half, Pushed, Types, ValueSchema, schema_id};
use crate::core::change::{Chunk, Run};

/// How many schemas are known at a time; beyond, all are forgotten and asked for again.
const SCHEMAS_MAX: usize = 4096;

/// What became of an event.
#[derive(Debug)]
pub(super) enum Put {
    /// As the decoder of its lane says.
    Pushed(Pushed),
    /// No table takes this record type.
    Unknown(Arc<str>),
}

/// The decoders of a pipeline.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// By schema id; none where the one lane takes whatever comes.
    routes: Option<HashMap<u32, Route>>,
    /// The lanes that took the last event.
    took: Vec<usize>,
}

struct Lane {
    decoder: Decoder,
    types: Types,
    /// Events of each run.
    events: Vec<u32>,
}

/// Where values of a schema go.
struct Route {
    form: Form,
    /// By the number of a body's type: its name, and the lane that takes it.
    to: Vec<(Arc<str>, Option<usize>)>,
}

impl Lanes {
    /// Lanes with these decoders, each for the record types that its tables take. No type is taken by two.
    pub(super) fn new(decoders: impl IntoIterator<Item = (Decoder, Types)>) -> Lanes {
        let lanes = decoders.into_iter().map(|(decoder, types)| Lane { decoder, types, events: Vec::new() });
        let lanes: Vec<Lane> = lanes.collect();
        let routed = lanes.iter().any(|lane| lane.types != Types::Any);
        Lanes { took: Vec::with_capacity(lanes.len()), lanes, routes: routed.then(HashMap::new) }
    }

    /// Appends an event to the lane of its record type. A tombstone has no type: it goes to every lane whose key it has.
    #[inline]
    pub(super) fn push(&mut self, event: &Event<'_>) -> Put {
        self.took.clear();
        let lane = match (&self.routes, event.value) {
            (None, _) => 0,
            (Some(_), None) => return Put::Pushed(self.push_tombstone(event)),
            (Some(routes), Some(value)) => match find(routes, value) {
                Ok(lane) => lane,
                Err(put) => return put,
            },
        };
        let pushed = self.lanes[lane].decoder.push(event);
        if matches!(pushed, Pushed::Row | Pushed::Delete) {
            self.took.push(lane);
        }
        Put::Pushed(pushed)
    }

    fn push_tombstone(&mut self, event: &Event<'_>) -> Pushed {
        // Before any lane has it: one that took it must not see it again.
        if let Some(id) = self.lanes.iter().find_map(|lane| lane.decoder.missing_key_schema(event.key)) {
            return Pushed::NeedsSchema { id, of: Half::Key };
        }
        let mut otherwise = Pushed::Passed;
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            match lane.decoder.push(event) {
                Pushed::Row | Pushed::Delete => self.took.push(number),
                Pushed::Passed => {}
                other => otherwise = other,
            }
        }
        if self.took.is_empty() { otherwise } else { Pushed::Delete }
    }

    /// Begins the next run of positions.
    #[inline]
    pub(super) fn open_run(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.events.push(0));
    }

    /// Counts the last event into the run of the lanes that took it.
    #[inline]
    pub(super) fn count(&mut self) {
        for &number in &self.took {
            if let Some(events) = self.lanes[number].events.last_mut() {
                *events += 1;
            }
        }
    }

    /// How many events there are, and about how much memory they take.
    #[inline]
    pub(super) fn size(&self) -> (usize, usize) {
        match self.lanes.as_slice() {
            [one] => (one.decoder.events(), one.decoder.bytes_about()),
            all => all
                .iter()
                .map(|l| (l.decoder.events(), l.decoder.bytes_about()))
                .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
        }
    }

    /// A chunk of each lane, all of them with these runs.
    ///
    /// # Errors
    /// As [`Decoder::finish`].
    pub(super) fn cut(&mut self, runs: &[Run]) -> Result<Vec<Arc<Chunk<RecordBatch>>>> {
        self.lanes.iter_mut().map(|lane| lane.cut(runs).map(Arc::new)).collect()
    }

    /// Takes in the schema of values. Types that no table takes only get to be known.
    ///
    /// # Errors
    /// As [`Decoder::add_values`].
    pub(super) fn add_values(&mut self, id: u32, schema: &ValueSchema) -> Result<()> {
        for lane in self.lanes.iter_mut().filter(|lane| schema.has_any_of(&lane.types)) {
            lane.decoder.add_values(id, schema)?;
        }
        let Some(routes) = &mut self.routes else { return Ok(()) };
        if routes.len() >= SCHEMAS_MAX {
            routes.clear();
        }
        let lane = |name: &Arc<str>| self.lanes.iter().position(|lane| lane.types.take(name));
        let to = schema.names().map(|name| (name.clone(), lane(name))).collect();
        routes.insert(id, Route { form: schema.form(), to });
        Ok(())
    }

    /// Takes in the schema of record keys. With several lanes it need not be that of all of them: what a lane cannot read
    /// is a bad record there, or no tombstone of its.
    ///
    /// # Errors
    /// As [`Decoder::add_key_schema`], where no lane can read it.
    pub(super) fn add_key_schema(&mut self, id: u32, text: &str) -> Result<()> {
        let mut refused = Vec::new();
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            if let Err(error) = lane.decoder.add_key_schema(id, text) {
                refused.push((number, error));
            }
        }
        if refused.len() == self.lanes.len() {
            return refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error));
        }
        refused.into_iter().for_each(|(number, _)| self.lanes[number].decoder.refuse_key_schema(id));
        Ok(())
    }
}

/// The lane that takes a value, or what else becomes of it.
#[inline]
fn find(routes: &HashMap<u32, Route>, value: &[u8]) -> std::result::Result<usize, Put> {
    let bad = |reason| Put::Pushed(Pushed::Bad(BadRecord { reason, half: Half::Value, field: None }));
    let (id, body) = schema_id(value).map_err(bad)?;
    let route = routes.get(&id).ok_or(Put::Pushed(Pushed::NeedsSchema { id, of: Half::Value }))?;
    let (number, _) = route.form.split(body, route.to.len()).map_err(bad)?;
    match &route.to[number] {
        (_, Some(lane)) => Ok(*lane),
        (name, None) => Err(Put::Unknown(name.clone())),
    }
}

impl Lane {
    fn cut(&mut self, runs: &[Run]) -> Result<Chunk<RecordBatch>> {
        let decoded = self.decoder.finish()?;
        let runs = runs.iter().zip(std::mem::take(&mut self.events)).map(|(run, events)| Run { events, ..run.clone() });
        Ok(Chunk {
            runs: runs.collect(),
            offsets: decoded.offsets,
            keys: decoded.keys,
            ops: decoded.ops,
            orders: decoded.orders,
            row_of: decoded.row_of,
            rows: decoded.batch,
            bytes: decoded.bytes,
        })
    }
}

//! The lanes of a pipeline: tables that take the same rows, with the decoder that makes them.
//!
//! Every lane hears of every position, so that V of each table passes the events that are not its own.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::Result;
use crate::avro::{BadRecord, Decoder, Event, Form, Half, KeySchema, Plans, Pushed, Types, ValueSchema, schema_id};
use crate::core::change::{Asks, Chunk, Run};
use crate::core::schema::{TableFormat, TableSchema};

/// The table that each lane would make of a schema; none where it takes none of its types.
pub(super) type Wanted = Vec<Option<Arc<TableSchema>>>;

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
    routes: Option<Plans<Route>>,
    /// The lanes that took the last event.
    took: Vec<usize>,
}

struct Lane {
    decoder: Decoder,
    types: Types,
    /// What its tables are kept in.
    formats: Arc<[TableFormat]>,
    /// Events of each run.
    events: Vec<u32>,
    /// Runs, and what the schemas of their events ask of the tables, in order and each once.
    asks: Vec<(u32, u32)>,
    /// What the last event of the run asks.
    run_asks: u32,
}

/// Where values of a schema go.
struct Route {
    form: Form,
    /// By the number of a body's type: its name, and the lane that takes it.
    to: Vec<(Arc<str>, Option<usize>)>,
}

impl Lanes {
    /// Lanes with these decoders, each for the record types that its tables take. No type is taken by two.
    pub(super) fn new(decoders: impl IntoIterator<Item = (Decoder, Types, Arc<[TableFormat]>)>) -> Lanes {
        let lane = |(decoder, types, formats)| {
            let (events, asks) = (Vec::new(), Vec::new());
            Lane { decoder, types, formats, events, asks, run_asks: 0 }
        };
        let lanes: Vec<Lane> = decoders.into_iter().map(lane).collect();
        let routed = lanes.iter().any(|lane| lane.types != Types::Any);
        Lanes { took: Vec::with_capacity(lanes.len()), lanes, routes: routed.then(Plans::default) }
    }

    /// Appends an event to the lane of its record type. A tombstone has no type: it goes to every lane whose key it has.
    #[inline]
    pub(super) fn push(&mut self, event: &Event<'_>) -> Put {
        self.took.clear();
        let lane = match (&mut self.routes, event.value) {
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
        if self.lanes.iter().any(|lane| lane.decoder.is_full()) {
            return Pushed::Full;
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
        for lane in &mut self.lanes {
            lane.events.push(0);
            lane.run_asks = 0;
        }
    }

    /// Counts the last event into the run of the lanes that took it.
    #[inline]
    pub(super) fn count(&mut self) {
        for &number in &self.took {
            self.lanes[number].count();
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

    /// How many timestamps lost digits since this was last asked.
    pub(super) fn take_cut_times(&mut self) -> u64 {
        self.lanes.iter_mut().map(|lane| lane.decoder.take_cut_times()).sum()
    }

    /// Takes in the schema of values, of which each lane that takes any would make a table of the columns `wanted`: where
    /// they cannot hold the rows yet, they grow, in all lanes or in none. Nothing may be left to be cut. Types that no
    /// table takes only get to be known.
    ///
    /// # Errors
    /// As [`Decoder::grow`].
    pub(super) fn grow(&mut self, id: u32, schema: &Arc<ValueSchema>, wanted: &Wanted) -> Result<()> {
        let asked = || self.lanes.iter().zip(wanted);
        for (lane, wanted) in asked().filter_map(|(lane, wanted)| Some((lane, wanted.as_ref()?))) {
            lane.decoder.grown(wanted, &lane.formats)?;
        }
        for (lane, wanted) in self.lanes.iter_mut().zip(wanted) {
            if let Some(wanted) = wanted {
                lane.decoder.grow(id, schema, wanted, &lane.formats)?;
            }
        }
        self.route(id, schema);
        Ok(())
    }

    /// Takes in the schema of values for columns that stay as they are.
    ///
    /// # Errors
    /// As [`Decoder::add_values`].
    pub(super) fn add_values(&mut self, id: u32, schema: &Arc<ValueSchema>) -> Result<()> {
        for lane in self.lanes.iter_mut().filter(|lane| schema.has_any_of(&lane.types)) {
            lane.decoder.add_values(id, schema)?;
        }
        self.route(id, schema);
        Ok(())
    }

    fn route(&mut self, id: u32, schema: &ValueSchema) {
        let Some(routes) = &mut self.routes else { return };
        let lane = |name: &Arc<str>| self.lanes.iter().position(|lane| lane.types.take(name));
        let to = schema.names().map(|name| (name.clone(), lane(name))).collect();
        routes.insert(id, Route { form: schema.form(), to }, schema.names().len());
    }

    /// Takes in the schema of record keys. With several lanes it need not be that of all of them: what a lane cannot read
    /// is a bad record there, or no tombstone of its.
    ///
    /// # Errors
    /// As [`Decoder::add_keys`], where no lane can read it.
    pub(super) fn add_keys(&mut self, id: u32, schema: &Arc<KeySchema>) -> Result<()> {
        let mut refused = Vec::new();
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            if let Err(error) = lane.decoder.add_keys(id, schema) {
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
fn find(routes: &mut Plans<Route>, value: &[u8]) -> std::result::Result<usize, Put> {
    let bad = |reason| Put::Pushed(Pushed::Bad(BadRecord { reason, half: Half::Value, field: None }));
    let (id, body) = schema_id(value).map_err(bad)?;
    let route = routes.find(id).ok_or(Put::Pushed(Pushed::NeedsSchema { id, of: Half::Value }))?;
    let (number, _) = route.form.split(body, route.to.len()).map_err(bad)?;
    match &route.to[number] {
        (_, Some(lane)) => Ok(*lane),
        (name, None) => Err(Put::Unknown(name.clone())),
    }
}

impl Lane {
    /// Counts the last event into the run.
    #[inline]
    fn count(&mut self) {
        let Some(events) = self.events.last_mut() else { return };
        *events += 1;
        let asks = self.decoder.asks();
        if asks != self.run_asks && asks != 0 {
            self.run_asks = asks;
            self.note_asks(asks);
        }
    }

    fn note_asks(&mut self, asks: u32) {
        let run = self.events.len() as u32 - 1;
        if !self.asks.iter().rev().take_while(|(of, _)| *of == run).any(|(_, known)| *known == asks) {
            self.asks.push((run, asks));
        }
    }

    fn cut(&mut self, runs: &[Run]) -> Result<Chunk<RecordBatch>> {
        let decoded = self.decoder.finish()?;
        let wanted = |(run, asks): (u32, u32)| Some((run, self.decoder.wanted(asks)?.clone()));
        let of_runs = std::mem::take(&mut self.asks).into_iter().filter_map(wanted).collect();
        let asks = Asks { names: self.decoder.columns().clone(), of_runs, schemas: decoded.schemas };
        let runs = runs.iter().zip(std::mem::take(&mut self.events)).map(|(run, events)| Run { events, ..run.clone() });
        Ok(Chunk {
            runs: runs.collect(),
            offsets: decoded.offsets,
            keys: decoded.keys,
            ops: decoded.ops,
            orders: decoded.orders,
            row_of: decoded.row_of,
            rows: decoded.batch,
            asks,
            bytes: decoded.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::{DeleteBy, EventShape, Mode, Nanoseconds, RecordKey, RecursiveTypes, table_schema};
    use crate::core::change::Key;
    use crate::core::offsets::{Epoch, PartitionId};

    fn lane(name: &str) -> (Decoder, Types, Arc<[TableFormat]>) {
        let shape = EventShape {
            mode: Mode::Upsert,
            key: Some(vec!["id".into()]),
            record_key: Some(RecordKey::Int64),
            order_by: None,
            delete: DeleteBy::Tombstone,
            lineage: None,
            types: Types::One(name.into()),
            recursive_types: RecursiveTypes::Refuse,
            nanoseconds: Nanoseconds::Truncate,
        };
        let schema = format!(r#"{{"type":"record","name":"{name}","fields":[{{"name":"id","type":"long"}}]}}"#);
        let table = table_schema(&schema, None, &shape, 3).unwrap();
        let decoder = Decoder::new(&table, &shape, Box::new(|columns| Ok(vec![Key(0); columns[0].len()]))).unwrap();
        (decoder, shape.types, Arc::from([]))
    }

    #[test]
    fn a_tombstone_waits_until_every_lane_has_room() {
        let topic = Arc::from("t");
        let key = 7i64.to_be_bytes();
        let event =
            Event { topic: &topic, partition: 0, offset: 5, timestamp_ms: 0, key: Some(key.as_slice()), value: None };
        for full in 0..2 {
            let mut lanes = Lanes::new(["A", "B"].map(lane));
            lanes.open_run();
            lanes.lanes[full].decoder.set_bytes_max(0);
            assert!(matches!(lanes.push(&event), Put::Pushed(Pushed::Full)));
            assert_eq!(lanes.size().0, 0, "lane {full} is full and the other took it");
            lanes.lanes[full].decoder.set_bytes_max(usize::MAX);
            assert!(matches!(lanes.push(&event), Put::Pushed(Pushed::Delete)));
            lanes.count();
            let run = Run {
                partition: PartitionId { topic: topic.clone(), partition: 0 },
                epoch: Epoch(1),
                events: 0,
                next: 6,
            };
            let chunks = lanes.cut(&[run]).unwrap();
            assert!(chunks.iter().all(|chunk| chunk.offsets == [5] && chunk.runs[0].events == 1));
        }
    }
}

//! A story: the whole of one schedule, as data. What it says is what happens, so it can be printed, and cut shorter.
//!
//! All times are in ms from the beginning of the story, unless they say otherwise.

use promdedup::stand_in::coordination::Reach;
use std::fmt;

/// A sender that was refused comes again within that time, and a little.
pub(crate) const PAUSE_MAX_MS: i64 = 6_000;

/// One schedule.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    /// Rolls what the plans leave open: delays, and which request a fault hits.
    pub(crate) seed: u64,
    /// When the last sample is taken. All faults are over by then.
    pub(crate) span_ms: i64,
    pub(crate) replicas: Vec<ReplicaPlan>,
    pub(crate) targets: Vec<TargetPlan>,
    pub(crate) link: Link,
    pub(crate) proxy: ProxyPlan,
    /// With several instances of it.
    pub(crate) fleet: Option<FleetPlan>,
    pub(crate) faults: Vec<Fault>,
}

/// A Prometheus.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaPlan {
    /// The replicas that scrape the same.
    pub(crate) team: usize,
    pub(crate) shards: usize,
    /// How far its clock is ahead, and since when: sample times carry it.
    pub(crate) clock: Vec<(i64, i64)>,
}

/// Something that is scraped, or a group of rules.
#[derive(Clone, Debug)]
pub(crate) struct TargetPlan {
    /// Whose replicas scrape it.
    pub(crate) team: usize,
    /// The HA group that its labels name. A team that has targets of several mixes them in its requests.
    pub(crate) group: usize,
    /// Each interval and since when; the first since the beginning.
    pub(crate) intervals_ms: Vec<(i64, i64)>,
    /// When each replica scrapes, within the interval.
    pub(crate) phases_ms: Vec<i64>,
    /// Scrapes come up to so much early or late.
    pub(crate) jitter_ms: i64,
    pub(crate) kind: Kind,
    /// There is nothing before and after it, for all replicas.
    pub(crate) life: (i64, i64),
    pub(crate) series: Vec<SeriesPlan>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Has `up` and `scrape_duration_seconds` beside its own series.
    Scraped,
    /// Evaluated at the same times by all replicas, with values of their own.
    Rules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeriesPlan {
    Steady,
    /// Born and gone within its target's life.
    Life(i64, i64),
    /// In one scrape of so many, about.
    Rare(i64),
    /// Only this replica has it.
    Only(usize),
}

/// The way of the requests, when nothing is wrong with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// How long a batch waits to become full, at most.
    pub(crate) flush_ms: i64,
    /// From replica to proxy, and back, at most.
    pub(crate) way_ms: i64,
    /// From proxy to upstream and back, at most.
    pub(crate) store_ms: i64,
    /// Samples in a batch, at most.
    pub(crate) batch: usize,
}

impl Link {
    /// The longest a sample takes from its scrape to the proxy's decision: it waits for its batch, the batch for the
    /// one before, and both are on their way.
    pub(crate) fn delay_max_ms(&self) -> i64 {
        self.flush_ms + 3 * self.way_ms + self.store_ms
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ProxyPlan {
    pub(crate) series_max: usize,
    pub(crate) idle_ms: i64,
    pub(crate) hold_ms: i64,
}

/// Several instances that share the groups out.
#[derive(Clone, Debug)]
pub(crate) struct FleetPlan {
    /// By instance: how far its clock is ahead.
    pub(crate) ahead_ms: Vec<i64>,
    /// A statement to the database takes so long each way, at most.
    pub(crate) database_ms: i64,
    /// From one instance to another, and back, at most.
    pub(crate) hop_ms: i64,
    /// Requests are dealt by chance, and not in turn.
    pub(crate) by_chance: bool,
    /// An instance that was asked to end goes on for so long.
    pub(crate) lead_ms: i64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) at_ms: i64,
    pub(crate) for_ms: i64,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// SIGKILL: what it has not delivered is gone. It comes back with other phases, or with the same.
    Death {
        replica: usize,
        moved: bool,
    },
    /// SIGSTOP and SIGCONT: neither scrapes nor sends.
    Frozen {
        replica: usize,
    },
    /// It scrapes, and nothing arrives.
    Partition {
        replica: usize,
    },
    /// What it sends takes so much longer.
    Slow {
        replica: usize,
        delay_ms: i64,
    },
    /// Connections of it break, before or after the proxy has the request.
    Flaky {
        replica: usize,
    },
    /// A new number of shards, after the old ones have sent what they have.
    Reshard {
        replica: usize,
        shards: usize,
    },
    /// No scrape of these targets, and no trace of it. A set of bits, as below.
    Skipped {
        replica: usize,
        targets: u64,
    },
    /// They do not answer: `up` is 0.
    Unreachable {
        replica: usize,
        targets: u64,
    },
    /// They are not to be scraped any more: all series end.
    Removed {
        replica: usize,
        targets: u64,
    },
    Upstream(Sick),
    /// SIGTERM: drains, and is back after the time.
    ProxyTerm,
    /// SIGKILL.
    ProxyCrash,
    /// One of several instances, or what they have in common.
    Fleet(Mishap),
}

/// What may happen to several instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// SIGKILL; a new process comes after the time.
    Crash { instance: usize },
    /// SIGTERM: it leaves its groups and ends; a new process comes after the time.
    Ends { instance: usize },
    #[cfg_attr(not(test), expect(dead_code, reason = "only a test breaks what it tests"))]
    /// As that, but it says nothing of its groups: it shows that the checker sees it.
    Quits { instance: usize },
    /// It is not there before.
    Comes { instance: usize },
    /// It gets on with the database like that, alone.
    NoDatabase { instance: usize, reach: Reach },
    /// All do.
    DatabaseAway { reach: Reach },
    /// Statements take up to so much longer, each way.
    DatabaseSlow { more_ms: i64 },
    /// All rows are lost.
    DatabaseForgets,
    /// When the time is over, another server has its place, with the rows as they were when it began.
    DatabaseFallsBack,
    /// Neither reaches the other: connections are refused, or hang.
    Apart { one: usize, other: usize, hangs: bool },
    /// The others do not reach it; it reaches them.
    Unreached { instance: usize, hangs: bool },
    #[cfg_attr(not(test), expect(dead_code, reason = "only a test tells lies"))]
    /// As that, and a hop that came to nothing counts as delivered. Nobody stands that: it shows that the checker sees it.
    Lies { instance: usize },
}

/// What is wrong with the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sick {
    /// Answers so, and stores nothing.
    Answers(u16),
    /// Stores, and answers so.
    StoresAndAnswers(u16),
    /// Answers nothing before the proxy's patience ends; stores first, or not.
    Hangs { stores: bool },
    /// Breaks the connection; after storing, or before.
    Resets { stores: bool },
    #[cfg_attr(not(test), expect(dead_code, reason = "only a test tells lies"))]
    /// Says that it stores, and does not. Nobody stands that: it shows that the checker sees it.
    Lies,
    /// Takes so many series in one request.
    TakesAtMost(usize),
    /// Any of these, request by request, or nothing.
    Moody,
}

impl Story {
    /// The widest interval in use around a time.
    pub(crate) fn interval_ms(&self, target: usize, around_ms: i64) -> i64 {
        self.targets[target].interval_ms(around_ms)
    }

    /// As long as two scrapes of a replica may be apart that are two intervals of the series apart.
    pub(crate) fn two_intervals_ms(&self, target: usize, plan: SeriesPlan, around_ms: i64) -> i64 {
        let scrapes = if let SeriesPlan::Rare(every) = plan { every } else { 1 };
        2 * scrapes * self.interval_ms(target, around_ms) + self.targets[target].jitter_ms
    }

    /// When a process of the proxy begins that is not the first.
    pub(crate) fn proxy_lives(&self) -> impl Iterator<Item = i64> {
        let restarts =
            self.faults.iter().filter(|fault| matches!(fault.what, What::ProxyCrash | What::ProxyTerm));
        restarts.map(|fault| fault.at_ms + fault.for_ms)
    }

    /// When a window is lost.
    pub(crate) fn proxy_restarts(&self) -> impl Iterator<Item = i64> {
        let restarts =
            self.faults.iter().filter(|fault| matches!(fault.what, What::ProxyCrash | What::ProxyTerm));
        restarts.map(|fault| fault.at_ms)
    }

    pub(crate) fn shortest_interval_ms(&self) -> i64 {
        let all = self.targets.iter().flat_map(|target| &target.intervals_ms);
        all.map(|(_, interval)| *interval).min().unwrap_or(1_000)
    }

    /// Whether a clock is off by more than a while: then a sample may be newer than all of the others' for longer than
    /// any series may do without.
    pub(crate) fn has_wrong_clocks(&self) -> bool {
        let wrong = |(_, ahead): &(i64, i64)| 2 * ahead.abs() > 3 * self.shortest_interval_ms();
        self.replicas.iter().any(|replica| replica.clock.iter().any(wrong))
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.faults.is_empty()
            && self.fleet.is_none()
            && self.replicas.iter().all(|replica| replica.clock.is_empty())
            && self.targets.iter().all(|target| target.intervals_ms.len() == 1)
    }

    /// Whether something is wrong at a time that goes on and on, or senders have not come again since. A replica or a
    /// target that is away is away once: that settles while it lasts.
    pub(crate) fn is_troubled(&self, at_ms: i64) -> bool {
        let goes_on = |what: &What| {
            what.replica().is_none()
                || matches!(what, What::Slow { .. } | What::Flaky { .. } | What::Reshard { .. })
        };
        self.faults.iter().filter(|fault| goes_on(&fault.what)).any(|fault| {
            let hold_ms = match fault.what {
                What::ProxyCrash | What::ProxyTerm => self.proxy.hold_ms,
                _ => 0,
            };
            let grace_ms = PAUSE_MAX_MS + hold_ms + self.link.delay_max_ms();
            (fault.at_ms..fault.at_ms + fault.for_ms + grace_ms).contains(&at_ms)
        })
    }

    /// Whether there is a fault of that kind.
    pub(crate) fn has(&self, kind: impl Fn(&What) -> bool) -> bool {
        self.faults.iter().any(|fault| kind(&fault.what))
    }

    /// Whether a request can be stored without its sender hearing of it, so that it is sent again.
    pub(crate) fn loses_answers(&self) -> bool {
        self.has(|what| {
            matches!(
                what,
                What::ProxyCrash
                    | What::ProxyTerm
                    | What::Fleet(_)
                    | What::Partition { .. }
                    | What::Flaky { .. }
                    | What::Frozen { .. }
                    | What::Upstream(
                        Sick::StoresAndAnswers(_) | Sick::Hangs { .. } | Sick::Resets { .. } | Sick::Moody
                    )
            )
        })
    }

    /// Whether an instance is not there in the beginning.
    pub(crate) fn comes_later(&self, instance: usize) -> bool {
        self.has(|what| *what == What::Fleet(Mishap::Comes { instance }))
    }

    /// How many HA groups there are.
    pub(crate) fn groups(&self) -> usize {
        self.targets.iter().map(|target| target.group + 1).max().unwrap_or(0)
    }

    /// Whether there is a time in which upstream takes nothing, or not all.
    pub(crate) fn has_outage(&self) -> bool {
        self.has(|what| {
            matches!(what, What::Upstream(_) | What::ProxyCrash | What::ProxyTerm | What::Fleet(_))
        })
    }

    /// Whether upstream refuses data for good, so that senders drop some.
    pub(crate) fn loses_data(&self) -> bool {
        self.has(|what| match what {
            What::Upstream(Sick::Answers(status) | Sick::StoresAndAnswers(status)) => {
                matches!(status, 400 | 409 | 413 | 422)
            }
            _ => false,
        })
    }
}

impl TargetPlan {
    /// The widest interval in use around a time.
    pub(crate) fn interval_ms(&self, around_ms: i64) -> i64 {
        self.intervals_in_use_ms(around_ms, 2).max().unwrap_or(1_000)
    }

    /// The shortest interval in use around a time: a longer one is believed when it is seen twice.
    pub(crate) fn believed_interval_ms(&self, around_ms: i64) -> i64 {
        self.intervals_in_use_ms(around_ms, 3).min().unwrap_or(1_000)
    }

    /// Those of `margin` times the widest before and after.
    fn intervals_in_use_ms(&self, around_ms: i64, margin: i64) -> impl Iterator<Item = i64> {
        let margin = margin * self.intervals_ms.iter().map(|(_, interval)| *interval).max().unwrap_or(1_000);
        self.intervals_ms.iter().enumerate().filter_map(move |(nth, (since, interval))| {
            let until = self.intervals_ms.get(nth + 1).map_or(i64::MAX, |(since, _)| *since);
            let begun = nth == 0 || around_ms + margin >= *since;
            (begun && around_ms - margin < until).then_some(*interval)
        })
    }
}

impl What {
    /// What it is called in tables.
    pub(crate) fn name(&self) -> String {
        let text = format!("{self:?}");
        let name = text.split(" {").next().unwrap_or_default();
        name.trim_start_matches("Fleet(").trim_end_matches(')').to_owned()
    }

    /// The replica that it strikes; faults of the rest strike everybody.
    pub(crate) fn replica(&self) -> Option<usize> {
        match *self {
            Self::Death { replica, .. }
            | Self::Frozen { replica }
            | Self::Partition { replica }
            | Self::Slow { replica, .. }
            | Self::Flaky { replica }
            | Self::Reshard { replica, .. }
            | Self::Skipped { replica, .. }
            | Self::Unreachable { replica, .. }
            | Self::Removed { replica, .. } => Some(replica),
            Self::Upstream(_) | Self::ProxyTerm | Self::ProxyCrash | Self::Fleet(_) => None,
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} s, {:?}, {:?}", self.span_ms / 1000, self.link, self.proxy)?;
        if let Some(fleet) = &self.fleet {
            writeln!(f, "  {fleet:?}")?;
        }
        for (nth, replica) in self.replicas.iter().enumerate() {
            writeln!(f, "  replica {nth}: {} shard(s), clock {:?}", replica.shards, replica.clock)?;
        }
        for (nth, target) in self.targets.iter().enumerate() {
            writeln!(f, "  target {nth}: {target:?}")?;
        }
        for fault in &self.faults {
            let Fault { at_ms, for_ms, what } = fault;
            writeln!(f, "  at {:.3} s for {:.3} s: {what:?}", *at_ms as f64 / 1e3, *for_ms as f64 / 1e3)?;
        }
        Ok(())
    }
}

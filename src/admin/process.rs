//! `process_*`: what the system says of this process.
//!
//! Owns the CPU time, which the collector of the crate has in whole seconds only: too coarse for a rate over a minute.

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use rustix::time::{ClockId, clock_gettime};

/// The crate's collector, with the CPU time as exact as the kernel has it.
#[derive(Debug)]
pub(super) struct Process(ProcessCollector);

impl Process {
    pub(super) fn of_self() -> Self {
        Self(ProcessCollector::for_self())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        let cpu = families.iter_mut().filter(|family| family.name() == "process_cpu_seconds_total");
        for metric in cpu.flat_map(MetricFamily::mut_metric) {
            let mut exact = metric.get_counter().clone();
            exact.set_value(cpu_s());
            metric.set_counter(exact);
        }
        families
    }
}

/// User and system time of all threads of this process, ended ones included.
fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Registry;

    #[test]
    fn cpu_time_is_there_once_and_in_fractions_of_a_second() {
        let registry = Registry::new();
        registry.register(Box::new(Process::of_self())).unwrap();
        let shown = || {
            let families = registry.gather();
            let named: Vec<_> = families.iter().filter(|f| f.name() == "process_cpu_seconds_total").collect();
            assert_eq!((named.len(), named[0].get_metric().len()), (1, 1));
            assert!(families.iter().any(|family| family.name() == "process_resident_memory_bytes"));
            named[0].get_metric()[0].get_counter().get_value()
        };
        let (before, begun) = (cpu_s(), shown());
        assert!(before <= begun && begun <= cpu_s(), "{begun}");
        // Other tests run at the same time: all of it is this process's.
        while cpu_s() < begun + 0.05 {}
        let more = shown() - begun;
        assert!(more >= 0.05, "{more} s");
    }
}

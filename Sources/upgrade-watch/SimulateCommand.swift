import ArgumentParser
import Comparison
import Foundation
import Simulator
import StrictYAML
import UpgradeWatch

/// `upgrade-watch simulate`.
struct SimulateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Simulate upgrades from scenario files, and score the verdicts.",
        discussion: """
            A scenario file describes a cluster, its load and noise, the roll-out, nuisances and faults:
            docs/soakbench.md. The same file and seed give the same output, byte for byte.

            Example:
              upgrade-watch simulate Benchmarks/SoakBench/storm-evictions.yaml
              upgrade-watch simulate Benchmarks/SoakBench/*.yaml --seeds 1..20 --score --json
            """)

    @Argument(help: "The scenario files.") var scenarios: [String]

    @Option(help: "One seed, a range of them as in 1..20, or 1.. for as many from there as each scenario asks for.")
    var seeds = "1"

    @Flag(help: "Print how good the verdicts are, over all files and for each.")
    var score = false

    @Flag(help: "Print JSON.")
    var json = false

    @Flag(help: "Judge with the baselines as well, and score them beside.")
    var baselines = false

    @Option(help: "Write the first scenario's first seed as a recording into this directory, instead of judging.")
    var writeRecording: String?

    @Option(help: "A file of signals to judge by. Default: the built-in ones.")
    var signals: String?

    @Option(help: "How many runs go on side by side.")
    var jobs = max(1, ProcessInfo.processInfo.activeProcessorCount)

    func validate() throws {
        guard SeedRange(seeds) != nil else {
            throw ValidationError("--seeds \(seeds) is neither a number nor a range, as in 1..20 or 1..")
        }
        if jobs < 1 { throw ValidationError("--jobs must be at least 1") }
    }

    func run() async throws {
        let (files, signals) = try await reporting(yaml: .badData) {
            (
                try scenarios.map { try Scenario.load(file: $0) },
                try self.signals.map { try Signal.load(file: $0) } ?? Defaults.signals()
            )
        }
        guard let seeds = SeedRange(seeds) else { return }
        if let directory = writeRecording {
            guard let file = files.first else { return }
            try await reporting {
                guard try RecordingWriter.isFree(directory) else { throw DirectoryInUse(path: directory) }
                try RecordingWriter.write(SimulatedCluster(file, seed: seeds.first), to: directory)
            }
            return
        }
        let work = files.indices.flatMap { file in seeds.of(files[file]).map { (file: file, seed: $0) } }
        let judges = baselines ? Baseline.allCases : []
        var runs = [ScenarioRun?](repeating: nil, count: work.count)
        var progress = Progress()
        try await withThrowingTaskGroup(of: (Int, ScenarioRun).self) { group in
            var next = 0
            func start() {
                guard next < work.count else { return }
                let (index, one) = (next, work[next])
                next += 1
                group.addTask {
                    (index, try ScenarioRun(files[one.file], seed: one.seed, signals: signals, baselines: judges))
                }
            }
            for _ in 0..<jobs { start() }
            while let (index, run) = try await group.next() {
                runs[index] = run
                progress.show(Double(next - 1) / Double(work.count))
                start()
            }
        }
        let report = ScoreReport(
            files.indices.map { file in
                let own = zip(work, runs).filter { $0.0.file == file }.compactMap(\.1)
                return (name: files[file].name, file: files[file].file, runs: own)
            }, judges: judges.map(\.rawValue))
        progress.finish()
        Output.text(
            try json ? report.json(withRuns: !score) : score ? report.table() : report.list())
        if score { Output.error(Cost.ofThisProcess.words(runs: work.count)) }
    }
}

/// The value of `--seeds`.
private struct SeedRange {
    let first: UInt64
    /// nil: as many as the scenario asks for.
    let last: UInt64?

    init?(_ text: String) {
        let parts = text.components(separatedBy: "..")
        guard parts.count <= 2, let first = UInt64(parts[0]), first < 1 << 63 else { return nil }
        self.first = first
        if parts.count == 2, parts[1].isEmpty {
            last = nil
        } else {
            guard let last = UInt64(parts[parts.count - 1]), first <= last, last - first < 1_000_000 else { return nil }
            self.last = last
        }
    }

    func of(_ scenario: Scenario) -> ClosedRange<UInt64> { first...(last ?? first + UInt64(scenario.seeds) - 1) }
}

/// What a process took: on standard error, since it is another each time, and the figures are not.
private struct Cost {
    var cpuSeconds: Double
    var peakBytes: Int

    static var ofThisProcess: Cost {
        var usage = rusage()
        getrusage(RUSAGE_SELF.rawValue, &usage)
        let seconds = { (time: timeval) in Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
        // Linux counts in kilobytes.
        return Cost(cpuSeconds: seconds(usage.ru_utime) + seconds(usage.ru_stime), peakBytes: usage.ru_maxrss << 10)
    }

    func words(runs: Int) -> String {
        String(
            format: "%d runs took %.1f s of processor time, and %d MiB at most", runs, cpuSeconds, peakBytes >> 20)
    }
}

/// A directory that would be written over.
struct DirectoryInUse: Error, CustomStringConvertible {
    var path: String

    var description: String { "\(path): the directory is not empty; name another, or remove what is there" }
}

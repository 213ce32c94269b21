import Foundation

/// What the kernel counts for a process, under the names that Prometheus' client libraries give it.
///
/// "Process metrics" of the guide for writing client libraries
/// (prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics).
struct ProcessMetrics {
    var cpuSeconds = 0.0
    var openFiles = 0
    var maxFiles = 0
    var virtualBytes = 0
    var residentBytes = 0
    var threads = 0
    /// Since the epoch.
    var startSeconds = 0.0

    /// Reads the files of this process; nil where they are not there or are not what they were.
    ///
    /// - Parameter procfs: where the kernel shows its processes.
    init?(procfs: String = "/proc") {
        guard let stat = ProcessMetrics.text(procfs + "/self/stat"), let name = stat.lastIndex(of: ")") else {
            return nil
        }
        // From the third field on: the second, a name in parentheses, may have blanks (proc(5), /proc/pid/stat).
        let fields = stat[stat.index(after: name)...].split(separator: " ").map(String.init)
        let ticks = Double(sysconf(Int32(_SC_CLK_TCK)))
        guard fields.count > 21, let user = Double(fields[11]), let system = Double(fields[12]),
            let threads = Int(fields[17]), let start = Double(fields[19]), let virtual = Int(fields[20]),
            let pages = Int(fields[21])
        else { return nil }
        cpuSeconds = (user + system) / ticks
        self.threads = threads
        virtualBytes = virtual
        residentBytes = pages * sysconf(Int32(_SC_PAGESIZE))
        let boot = ProcessMetrics.text(procfs + "/stat")?.split(separator: "\n")
            .first { $0.hasPrefix("btime ") }
            .flatMap { Double($0.dropFirst("btime ".count)) }
        startSeconds = (boot ?? 0) + start / ticks
        openFiles = (try? FileManager.default.contentsOfDirectory(atPath: procfs + "/self/fd").count) ?? 0
        let limits = ProcessMetrics.text(procfs + "/self/limits")?.split(separator: "\n")
            .first { $0.hasPrefix("Max open files") }
        maxFiles = limits.flatMap { $0.split(separator: " ").dropFirst(3).first }.flatMap { Int($0) } ?? 0
    }

    private static func text(_ path: String) -> String? { try? String(contentsOfFile: path, encoding: .utf8) }
}

// swift-tools-version: 6.2
import PackageDescription

let algorithms = Target.Dependency.product(name: "Algorithms", package: "swift-algorithms")
let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let grdb = Target.Dependency.product(name: "GRDB", package: "GRDB.swift")
let heap = Target.Dependency.product(name: "HeapModule", package: "swift-collections")
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let hummingbirdTLS = Target.Dependency.product(name: "HummingbirdTLS", package: "hummingbird")
let hummingbirdTesting = Target.Dependency.product(name: "HummingbirdTesting", package: "hummingbird")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let unixSignals = Target.Dependency.product(name: "UnixSignals", package: "swift-service-lifecycle")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

// The modules by level: a module imports only what stands below it (docs/architecture.md; held by `make check`).
let package = Package(
    name: "upgrade-watch",
    products: [.executable(name: "upgrade-watch", targets: ["upgrade-watch"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-algorithms", from: "1.2.1"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.2.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.0.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        // Level 0
        .systemLibrary(name: "CCrypt", providers: [.apt(["libcrypt-dev"])]),
        .systemLibrary(name: "CCurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        .systemLibrary(name: "CPCRE2", providers: [.apt(["libpcre2-dev"])]),
        .systemLibrary(name: "CSnappy", providers: [.apt(["libsnappy-dev"])]),
        .systemLibrary(name: "CZlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CZstd", providers: [.apt(["libzstd-dev"])]),
        // Level 1
        .target(name: "Series", dependencies: ["CPCRE2"]),
        .target(name: "Statistics"),
        // Level 2
        .target(name: "Exposition", dependencies: ["Series"]),
        .target(name: "Fetch", dependencies: ["Series", "CCurl", heap, deque]),
        .target(name: "PromQL", dependencies: ["Series"]),
        .target(name: "Storage", dependencies: ["Series", "CZlib", "CZstd", algorithms, grdb]),
        .target(name: "StrictYAML", dependencies: ["Series", yams]),
        // Level 3
        .target(name: "Alerting", dependencies: ["Series", "PromQL", "Fetch", "StrictYAML", grdb, logging]),
        .target(
            name: "Cluster", dependencies: ["Series", "Fetch", grdb, logging, yams],
            resources: [
                "api-removals", "behaviour-changes", "component-flags", "feature-gates", "metric-continuity",
                "metrics", "restart-causes",
            ].map { .embedInCode("Versions/\($0).tsv") }),
        .target(name: "LogWatch", dependencies: ["Series", "StrictYAML", grdb]),
        .target(name: "Remote", dependencies: ["Series", "Fetch", "CSnappy"]),
        .target(name: "Scrape", dependencies: ["Series", "Exposition", "Fetch", crypto, logging]),
        // Level 4
        .target(name: "Comparison", dependencies: ["Series", "PromQL", "Cluster", "Statistics", "StrictYAML"]),
        .target(name: "Discovery", dependencies: ["Series", "Fetch", "StrictYAML", "Cluster", "Scrape", logging]),
        .target(name: "Recording", dependencies: ["Series", "LogWatch", "Cluster", "CZstd"]),
        // Level 5
        .target(
            name: "Simulator",
            dependencies: ["Series", "PromQL", "Cluster", "Comparison", "Statistics", "StrictYAML", "CZstd"]),
        .target(name: "Report", dependencies: ["Series", "Cluster", "Comparison", "Statistics"]),
        // Level 6
        .target(
            name: "WebAPI",
            dependencies: [
                "Series", "PromQL", "Alerting", "Comparison", "Remote", "Report", "Cluster", "Scrape", "Fetch",
                "StrictYAML", "CCrypt", "CZlib", algorithms, hummingbird, logging, nioSSL,
            ]),
        // Level 7
        .target(
            name: "UpgradeWatch",
            dependencies: [
                "Series", "StrictYAML", "Exposition", "Fetch", "PromQL", "Storage", "Scrape", "LogWatch", "Cluster",
                "Discovery", "Remote", "Alerting", "Recording", "Comparison", "Report", "WebAPI", grdb, hummingbird,
                hummingbirdTLS,
                lifecycle, unixSignals, logging,
            ],
            resources: [
                "alerts-etcd.yaml", "alerts-kube-apiserver.yaml", "alerts-kube-controller-manager.yaml",
                "alerts-kube-scheduler.yaml", "alerts-kubelet.yaml", "alerts-pods.yaml", "log-rules.yaml",
                "signals.yaml",
            ].map { .embedInCode("Defaults/" + $0) }),
        // Level 8
        .executableTarget(
            name: "upgrade-watch",
            dependencies: [
                "Series", "StrictYAML", "Fetch", "PromQL", "Storage", "Cluster", "LogWatch", "Remote", "Alerting",
                "Recording",
                "Comparison", "Report", "Simulator", "WebAPI", "UpgradeWatch", argumentParser, logging, yams,
            ]),
        .executableTarget(name: "webhook-printer", dependencies: [hummingbird, argumentParser, logging]),
        // Tests
        .target(name: "TestSupport", dependencies: ["Series"], path: "Tests/TestSupport"),
        .testTarget(name: "SeriesTests", dependencies: ["Series"]),
        .testTarget(
            name: "SimulatorTests",
            dependencies: [
                "Simulator", "Comparison", "Cluster", "Report", "Series", "Statistics", "StrictYAML", "TestSupport",
            ]),
        .testTarget(name: "StatisticsTests", dependencies: ["Statistics", "TestSupport"]),
        .testTarget(name: "ExpositionTests", dependencies: ["Exposition", "Recording", "Series", "TestSupport"]),
        .target(
            name: "CFaultVFS", path: "Tests/CFaultVFS", linkerSettings: [.linkedLibrary("sqlite3")]),
        .executableTarget(
            name: "store-writer", dependencies: ["Storage", "Series", "TestSupport"], path: "Tests/StoreWriter"),
        .testTarget(
            name: "StorageTests",
            dependencies: ["CFaultVFS", "store-writer", "Storage", "Series", "TestSupport", grdb]),
        .target(name: "PromQLReference", dependencies: ["PromQL", "Series"], path: "Tests/PromQLReference"),
        .testTarget(
            name: "PromQLTests", dependencies: ["PromQL", "PromQLReference", "Series", "TestSupport"],
            exclude: ["Scripts"]),
        .testTarget(name: "FetchTests", dependencies: ["Fetch", "TestSupport"]),
        .testTarget(
            name: "ScrapeTests", dependencies: ["Scrape", "Exposition", "Fetch", "Series", "TestSupport", logging]),
        .testTarget(name: "LogWatchTests", dependencies: ["LogWatch", "Series", "StrictYAML", "TestSupport", grdb]),
        .testTarget(
            name: "ClusterTests",
            dependencies: ["Cluster", "Fetch", "Series", "StrictYAML", "TestSupport", grdb, logging]),
        .testTarget(
            name: "AlertingTests",
            dependencies: ["Alerting", "Fetch", "PromQL", "Series", "StrictYAML", "TestSupport", grdb, logging]),
        .testTarget(
            name: "DiscoveryTests",
            dependencies: ["Discovery", "Cluster", "Fetch", "Scrape", "Series", "TestSupport", logging]),
        .testTarget(name: "RemoteTests", dependencies: ["Fetch", "Remote", "Series", "TestSupport"]),
        .testTarget(name: "RecordingTests", dependencies: ["Recording", "TestSupport"]),
        .testTarget(
            name: "ComparisonTests",
            dependencies: ["Comparison", "Cluster", "Series", "Statistics", "StrictYAML", "TestSupport"]),
        .testTarget(
            name: "WebAPITests",
            dependencies: [
                "WebAPI", "Alerting", "PromQL", "Remote", "Series", "StrictYAML", "TestSupport", hummingbird,
                hummingbirdTesting,
            ]),
        .testTarget(
            name: "UpgradeWatchTests",
            dependencies: [
                "UpgradeWatch", "Alerting", "Discovery", "Exposition", "Fetch", "Scrape", "Series", "Storage",
                "StrictYAML", "TestSupport",
            ]),
        .testTarget(
            name: "EndToEndTests",
            dependencies: ["upgrade-watch", "Exposition", "Fetch", "Recording", "Series", "Storage", "TestSupport"]),
    ],
    swiftLanguageModes: [.v6]
)

// Fuzz targets need the fuzzer's runtime, and benchmarks nobody but their reader: both are built where they are asked
// for, and see the modules' `package` declarations because they are of this package (docs/decisions/0004).
if Context.environment["UPGRADE_WATCH_FUZZ"] != nil {
    let targets: [(String, [Target.Dependency])] = [
        ("FuzzExposition", ["Exposition"]), ("FuzzBlock", ["Storage"]), ("FuzzPromQL", ["PromQL", "Series"]),
        ("FuzzConfig", ["Alerting", "Comparison", "LogWatch", "Series", "Simulator", "StrictYAML"]),
        ("FuzzLogLine", ["Cluster", "LogWatch", "Series"]), ("FuzzEngine", ["PromQLReference"]),
    ]
    for (name, dependencies) in targets {
        package.targets.append(
            .executableTarget(
                name: name, dependencies: dependencies, path: "Fuzz/\(name)",
                swiftSettings: [.unsafeFlags(["-parse-as-library"])]))
    }
}
if Context.environment["UPGRADE_WATCH_BENCHMARKS"] != nil {
    package.targets.append(
        .executableTarget(
            name: "benchmarks",
            dependencies: [
                "Cluster", "Comparison", "Exposition", "Fetch", "LogWatch", "PromQL", "Recording", "Remote", "Scrape",
                "Series", "Storage", "TestSupport", logging,
            ],
            path: "Benchmarks", exclude: ["SoakBench"]))
}

for target in package.targets where target.type != .system {
    var settings = target.swiftSettings ?? []
    settings += [
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .treatAllWarnings(as: .error),
    ]
    target.swiftSettings = settings
}

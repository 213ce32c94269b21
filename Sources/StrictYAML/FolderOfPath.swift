extension String {
    /// The folder of a file as its path names it, to which other paths in the file are relative; `.` where it names none.
    package var folderOfPath: String {
        guard let slash = lastIndex(of: "/") else { return "." }
        return slash == startIndex ? "/" : String(self[..<slash])
    }
}

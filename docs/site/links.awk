# Reads the pages of the site, and fails when a link between them leads nowhere: to no file, or to no element with its name.

# The path that `link` names when it stands on the page `page`, without `.` and `..`.
function resolved(page, link,    parts, kept, count, n, i, path) {
    sub(/[^\/]*$/, "", page)
    count = split(page link, parts, "/")
    for (i = 1; i <= count; i++) {
        if (parts[i] == ".." && n > 0) n--
        else if (parts[i] != "." && parts[i] != "" && parts[i] != "..") kept[++n] = parts[i]
    }
    path = "."
    for (i = 1; i <= n; i++) path = path "/" kept[i]
    return (path "/index.html") in file ? path "/index.html" : path
}

BEGIN {
    count = split(pages, all, "\n")
    for (i = 1; i <= count; i++) file[all[i]]
}

{
    rest = $0
    while (match(rest, / (id|href|src)="[^"]*"/)) {
        found = substr(rest, RSTART + 1, RLENGTH - 2)
        rest = substr(rest, RSTART + RLENGTH)
        name = substr(found, 1, index(found, "=") - 1)
        value = substr(found, index(found, "\"") + 1)
        if (name == "id") anchor[FILENAME "#" value]
        else if (value !~ /^[a-z]+:/) links[++number] = FILENAME SUBSEP value
    }
}

END {
    for (i = 1; i <= number; i++) {
        split(links[i], one, SUBSEP)
        heading = index(one[2], "#") ? substr(one[2], index(one[2], "#") + 1) : ""
        path = one[2]
        sub(/[#?].*/, "", path)
        target = path == "" ? one[1] : resolved(one[1], path)
        if (!(target in file) || heading != "" && target ~ /\.html$/ && !((target "#" heading) in anchor)) {
            print "error: " one[1] ": nothing is at " one[2] > "/dev/stderr"
            broken++
        }
    }
    print number " links of the site lead somewhere" (broken ? ", but for " broken : "")
    if (broken || number < 500) exit 1
}

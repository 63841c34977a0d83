# Sends one message with Ruby's Net::SMTP: HOST PORT FROM TO[,TO…] FILE.
require "net/smtp"

host, port, from, to, file = ARGV
Net::SMTP.start(host, port.to_i, "ruby.example") do |smtp|
  smtp.send_message(File.binread(file), from, to.split(","))
end

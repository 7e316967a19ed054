output "names" {
  description = "Of all alarms."
  value = concat(
    [for alarm in aws_cloudwatch_metric_alarm.age : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.dead : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.reputation : alarm.alarm_name],
  )
}
